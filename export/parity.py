"""Compare the exported encoder with open_clip: an export is not done until both give the same embeddings.

One side is open_clip's own preprocessing and its model in PyTorch; the other is
`protocol.bundle.preprocessing.fit` and ONNX Runtime, as on the edge.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedmedclip.export.image_encoder import INPUT_NAME, OUTPUT_NAME
from fedmedclip.export.model import LoadedModel
from fedmedclip.export.one_thread import one_thread
from fedmedclip.export.onnx_session import open_session
from fedmedclip.protocol.bundle.bundle import Parity, Precision
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image

FP32_MAX_ABS_ERROR = 1e-4
FP16_COSINE_MIN = 0.999
INT8_COSINE_MIN = 0.97
# Several sizes, because an exporter can fix the batch size unnoticed.
FIRST_BATCH_SIZES = (1, 2)
BATCH_SIZE = 4


class ParityError(FedMedClipError):
    """The exported encoder does not do what open_clip's model does."""


def measure_parity(
    loaded: LoadedModel,
    encoder: Path,
    images: Iterable["Image"],
    precision: Precision,
    min_cosine: float = INT8_COSINE_MIN,
    *,
    own_length: bool = False,
) -> Parity:
    """Return how far the ONNX file `encoder` is from the loaded model on these images.

    Embeddings of `own_length` are compared as fractions of the original's length, which is then held as
    closely as the direction.

    Figures are rounded to the digits that say something. Raises ParityError when a pixel differs,
    when an fp32 embedding differs by more than 1e-4 in one value, or when the cosine between an fp16
    embedding and the original is less than 0.999, or of an int8 one less than `min_cosine`.
    """
    session = open_session(encoder)
    pixel_max_difference = 0
    references: list[npt.NDArray[np.float32]] = []
    exported: list[npt.NDArray[np.float32]] = []
    for batch in _batches(images):
        fitted = np.stack([fit(image, loaded.preprocessing) for image in batch])
        normalized, embeddings = _with_open_clip(loaded, batch, own_length=own_length)
        pixels = _to_levels(normalized, loaded)
        pixel_max_difference = max(pixel_max_difference, int(np.abs(pixels - fitted).max()))
        references.append(embeddings)
        exported.append(session.run([OUTPUT_NAME], {INPUT_NAME: fitted})[0])
    reference, result = np.concatenate(references), np.concatenate(exported)
    lengths: npt.NDArray[np.float32] | float = 1.0
    if own_length:
        originals = np.linalg.norm(reference, axis=1, keepdims=True)
        reference, result = reference / originals, result / originals
        lengths = np.linalg.norm(result, axis=1)
    cosines = np.minimum(np.sum(reference * result, axis=1, dtype=np.float64) / lengths, 1.0)
    parity = Parity(
        images=len(reference),
        pixel_max_difference=pixel_max_difference,
        embedding_max_abs_error=float(f"{np.abs(reference - result).max():.2g}"),
        cosine_min=round(float(cosines.min()), 6),
        cosine_mean=round(float(cosines.mean()), 6),
        tolerance=_tolerance(precision, min_cosine),
    )
    require_parity(parity, precision)
    return parity


def require_image_embeddings(loaded: LoadedModel) -> None:
    """Raise InvalidInputError when the model itself, before any export, gives no embedding of an image."""
    from PIL import Image

    size = (loaded.preprocessing.width, loaded.preprocessing.height)
    _, embeddings = _with_open_clip(loaded, [Image.new("RGB", size, (200, 120, 60))])
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=0, atol=1e-3):
        raise InvalidInputError(
            f"the image tower of {loaded.source.shown_name} gives NaN, infinite values or only zeros; "
            "its weights are damaged"
        )


def require_parity(parity: Parity, precision: Precision) -> None:
    """Raise ParityError unless the figures (which may be NaN) are within the precision's tolerance."""
    if parity.pixel_max_difference:
        raise ParityError(
            f"the export was stopped: preprocessing differs from open_clip's by up to "
            f"{parity.pixel_max_difference} levels; this model's preprocessing is not supported"
        )
    if precision == "fp32" and not parity.embedding_max_abs_error <= parity.tolerance:
        raise ParityError(
            f"the export was stopped: embeddings differ from open_clip's by up to "
            f"{parity.embedding_max_abs_error:g}, allowed is {parity.tolerance:g}; "
            "this model does not survive ONNX export"
        )
    if precision != "fp32" and not parity.cosine_min >= parity.tolerance:
        advice = (
            "give --calibrate DIR with images like those at the sites, use --precision fp16, "
            "or accept it with a lower --min-cosine"
        )
        raise ParityError(
            f"the export was stopped: {precision} embeddings have a cosine of only {parity.cosine_min:g} "
            f"with open_clip's, {parity.tolerance:g} is needed; "
            + (advice if precision == "int8" else "use --precision fp32")
        )


def _tolerance(precision: Precision, min_cosine: float) -> float:
    return {"fp32": FP32_MAX_ABS_ERROR, "fp16": FP16_COSINE_MIN, "int8": min_cosine}[precision]


def _batches(images: Iterable["Image"]) -> Iterator[list["Image"]]:
    iterator = iter(images)
    for size in chain(FIRST_BATCH_SIZES, repeat(BATCH_SIZE)):
        batch = list(islice(iterator, size))
        if not batch:
            return
        yield batch


def _with_open_clip(
    loaded: LoadedModel, images: list["Image"], *, own_length: bool = False
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return open_clip's input, float32 (batch, 3, height, width), and its embeddings (batch, D).

    They are unit rows, or with `own_length` of the length that the model gives them.
    """
    import torch

    with one_thread(), torch.no_grad():
        batch = torch.stack([loaded.transform(image) for image in images])
        embeddings = loaded.network.encode_image(batch, normalize=not own_length)
    return batch.numpy(), embeddings.numpy()


def _to_levels(normalized: npt.NDArray[np.float32], loaded: LoadedModel) -> npt.NDArray[np.int64]:
    """Undo the normalisation: int64 (batch, height, width, 3) in 8-bit levels."""
    mean = np.asarray(loaded.preprocessing.mean)
    deviation = np.asarray(loaded.preprocessing.standard_deviation)
    scaled = (normalized.transpose(0, 2, 3, 1) * deviation + mean) * 255
    levels: npt.NDArray[np.int64] = np.rint(scaled).astype(np.int64)
    return levels

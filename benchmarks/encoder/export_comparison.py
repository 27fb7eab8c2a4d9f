"""One open_clip model with random weights: its exported towers beside the originals."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.encoder.random_models import random_network, settle_batch_normalisations
from fedmedclip.export.image_encoder import encoder_to_onnx
from fedmedclip.export.model import LoadedModel, preprocessing_of
from fedmedclip.export.model_source import ModelSource, agreed_preprocessing
from fedmedclip.export.onnx_session import session_of
from fedmedclip.export.parity_images import generated_images, images_in
from fedmedclip.export.quantize import quantize_matrix_products
from fedmedclip.export.quiet import quiet
from fedmedclip.export.text_encoder import text_encoder_to_onnx
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = 3
# What open_clip's tokenizer gives a Hugging Face tower, unless a configuration says otherwise.
HUGGING_FACE_LENGTH = 77
Floats = npt.NDArray[np.float32]


def compare(name: str, images: Path | None) -> dict[str, Any]:
    """Export both towers of a model and return the figures of `export_coverage.json`.

    `images` is a folder with images that are not square; without it, some are generated. Errors are the
    largest difference in one value of embeddings of unit length. The spread is one minus the largest cosine
    between two images: at 0 the comparison would be worth nothing.
    """
    started = time.monotonic()
    network = random_network(name, agreed_preprocessing(name))
    transform, preprocessing = preprocessing_of(network)
    tokenizer = _NoTokenizer(random_tokens(network).shape[1])
    loaded = LoadedModel(ModelSource(name, None, name, ""), network, tokenizer, transform, preprocessing)
    figures = _image_figures(loaded, list(islice(_not_square(images), IMAGES)))
    figures |= _text_figures(loaded)
    return {"status": "ok", **figures, "seconds": round(time.monotonic() - started, 1)}


def _image_figures(loaded: LoadedModel, images: list["Image"]) -> dict[str, Any]:
    import torch

    network = loaded.network
    transformed = torch.stack([loaded.transform(image) for image in images])
    settle_batch_normalisations(network.visual, transformed)
    with torch.no_grad():
        expected: Floats = network.encode_image(transformed, normalize=True).numpy()
    model = encoder_to_onnx(loaded)
    pixels = np.stack([fit(image, loaded.preprocessing) for image in images])
    # One image alone and the rest together: an exporter can fix the batch size unnoticed.
    found = _run(model, [{"image": pixels[:1]}, {"image": pixels[1:]}])
    figures: dict[str, Any] = {"image_max_abs_error": _rounded(np.abs(found - expected).max())}
    cosines = expected @ expected.T
    figures["image_spread"] = _rounded(1 - cosines[~np.eye(len(images), dtype=bool)].max())
    try:
        model, _ = quantize_matrix_products(model)
    except InvalidInputError:
        return figures | {"int8_cosine": None}
    one_by_one = _run(model, [{"image": pixels[i : i + 1]} for i in range(len(pixels))])
    return figures | {"int8_cosine": round(float((one_by_one * expected).sum(axis=1).min()), 5)}


def _text_figures(loaded: LoadedModel) -> dict[str, Any]:
    import torch

    network = loaded.network
    tokens = random_tokens(network)
    with torch.no_grad(), quiet():
        expected: Floats = network.encode_text(torch.from_numpy(tokens), normalize=True).numpy()
    model = text_encoder_to_onnx(loaded)
    found = _run(model, [{"tokens": tokens[:1]}, {"tokens": tokens[1:]}])
    cosines = expected @ expected.T
    return {
        "text_max_abs_error": _rounded(np.abs(found - expected).max()),
        "text_spread": _rounded(1 - cosines[~np.eye(len(tokens), dtype=bool)].max()),
    }


def random_tokens(network: Any) -> npt.NDArray[np.int64]:
    """Return int64 (3, context length): random words of three lengths, ended and padded."""
    text = getattr(network, "text", network)
    hugging_face = getattr(text, "config", None)
    length = HUGGING_FACE_LENGTH if hugging_face is not None else int(text.context_length)
    vocabulary = int(text.vocab_size)
    end = getattr(text, "eos_id", None) or vocabulary - 1
    padding = hugging_face.pad_token_id if hugging_face is not None else getattr(text, "pad_id", 0)
    generator = np.random.default_rng(0)
    tokens = np.full((3, length), padding, dtype=np.int64)
    for row, words in zip(tokens, (length - 1, length // 2, 4), strict=True):
        row[:words] = generator.integers(10, vocabulary - 2, words)
        row[words] = end
    return tokens


def _run(model: Any, inputs: list[dict[str, npt.NDArray[Any]]]) -> Floats:
    """Return the rows that ONNX Runtime gives for these inputs, one run after the other."""
    with session_of(model) as session:
        return np.concatenate([session.run(None, each)[0] for each in inputs])


def _not_square(folder: Path | None) -> Iterator["Image"]:
    images = images_in(folder) if folder else generated_images()
    return (image for image in images if image.width != image.height)


def _rounded(value: Any) -> float:
    return float(f"{float(value):.2g}")


class _NoTokenizer:
    """Stands for the tokenizer of a model that is given tokens."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, texts: list[str]) -> Any:
        raise NotImplementedError("a random model is given tokens")

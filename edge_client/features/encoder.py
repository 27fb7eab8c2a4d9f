"""The frozen image encoder of a bundle, run by ONNX Runtime, usually on the processor."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime

from fedmedclip.edge_client.cores import available_cores
from fedmedclip.edge_client.features.heap import return_freed_memory
from fedmedclip.edge_client.features.providers import PROCESSOR, Provider
from fedmedclip.protocol.bundle.bundle import Bundle, Manifest
from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.paths import onnx_fault

INPUT = "image"
OUTPUT = "embedding"

_encoded_images = 0


def encoded_images() -> int:
    """How many images this process has encoded, with whatever encoder: a training round must add none."""
    return _encoded_images


class Encoder:
    """An open encoder; a context manager. Closing it gives its memory back.

    The embedding of an image does not depend on the images beside it: a dynamically quantised encoder
    takes its scales from the whole batch, so an int8 encoder is run image by image. (With fp32, batches
    of 1 to 16 gave bit-identical embeddings.)

    Each thread encodes images of its own: that is faster than all threads together on one image after the
    other, which wait for each other at every layer.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        *,
        together: bool = False,
        resident: bool = False,
        provider: Provider = PROCESSOR,
    ) -> None:
        """Load the bundle's image encoder; `threads` defaults to the cores that this process may use.

        With `together`, all threads work on each image, and the weights stay as they lie in the file instead
        of being laid out anew for speed: the quickest from start to result for one image alone. Its embedding
        may differ from the usual one in the last bits. Where 8-bit layers would make more of that difference,
        the weights are laid out anew all the same.

        With `resident`, all threads work on each image as well, and the weights are laid out anew: for a
        process that stays, whose callers bring one image each. A lone one has all cores, several share them.

        On another `provider` images go through together, as it shares out the work itself. It is taken as it
        is: `provider_choice.open_encoder` tests it before.

        Raises BundleError when the ONNX file cannot be used, there or at all, or is not what the manifest
        says.
        """
        self.provider = provider.name
        self._path = bundle.image_encoder
        preprocessing = bundle.manifest.preprocessing
        self._image_shape = (preprocessing.height, preprocessing.width, 3)
        self._embedding_size = bundle.manifest.embedding_size
        self._one_by_one = bundle.manifest.precision == "int8"
        threads = threads or available_cores()
        self._workers = 1 if together or resident or provider.name != PROCESSOR.name else threads
        self._pool = ThreadPoolExecutor(self._workers, "encoder") if self._workers > 1 else None
        extended = is_transformer(bundle.manifest)
        self._session: Any = open_session(
            self._path,
            threads // self._workers,
            extended_only=extended,
            once=together and not _has_float_products_inside(bundle.manifest),
            provider=provider,
        )
        self._check_interface()

    def encode(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the embeddings, float32 (N, D), of images uint8 (N, height, width, 3).

        They are of unit length unless the bundle's manifest says `own_length`.

        Raises BundleError when the encoder fails or gives values that are not finite, ValueError for images
        of another shape or dtype.
        """
        global _encoded_images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._image_shape:
            raise ValueError(
                f"images are {images.dtype} {images.shape}, expected uint8 (N, *{self._image_shape})"
            )
        if len(images) == 0:
            return np.empty((0, self._embedding_size), dtype=np.float32)
        images_per_run = 1 if self._one_by_one else -(-len(images) // self._workers)
        parts = [images[start : start + images_per_run] for start in range(0, len(images), images_per_run)]
        run = self._pool.map if self._pool and len(parts) > 1 else map
        embeddings = np.concatenate(list(run(self._run, parts)))
        _encoded_images += len(images)
        return embeddings

    def close(self) -> None:
        """Release the session and its memory; safe to call twice."""
        self._session = None
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self._session is None:
            raise ValueError("the encoder is closed")
        try:
            embeddings: npt.NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: images})[0]
        except Exception as error:
            raise BundleError(
                f"{self._path} fails on {len(images)} images ({_first_line(error)}); export the bundle again"
            ) from error
        if embeddings.shape != (len(images), self._embedding_size) or not np.isfinite(embeddings).all():
            raise BundleError(
                f"{self._path} gave embeddings of shape {embeddings.shape} or not finite, "
                f"expected finite {(len(images), self._embedding_size)}; export the bundle again"
            )
        return embeddings

    def _check_interface(self) -> None:
        found = [
            (value.name, value.type, value.shape)
            for value in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        expected = [
            (INPUT, "tensor(uint8)", [None, *self._image_shape]),
            (OUTPUT, "tensor(float)", [None, self._embedding_size]),
        ]
        if len(found) != len(expected) or not all(map(_agrees, found, expected)):
            raise BundleError(
                f"{self._path} has the inputs and outputs {found}, expected {expected} "
                "with a free number of images (None); export the bundle again"
            )


def open_session(
    path: Path,
    threads: int | None,
    *,
    extended_only: bool = False,
    once: bool = False,
    provider: Provider = PROCESSOR,
) -> Any:
    """Return an ONNX Runtime session on a provider; raise BundleError when the file cannot be used there.

    `extended_only` leaves out the last level of optimisation, which lays convolutions out anew. `once`
    leaves the weights as they are, which opens a ViT-B/32 in half of the time (int8) or a sixth (fp32) and
    makes each run up to a quarter slower.
    """
    return_freed_memory()
    if fault := onnx_fault(path):
        raise BundleError(f"{path} cannot be loaded: {fault}")
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            _session_options(threads, extended_only, once),
            providers=[(provider.name, _provider_options(provider, threads))],
            enable_fallback=0,
        )
    # ONNX Runtime's exceptions have no base class of their own.
    except Exception as error:
        advice = "export the bundle again" if provider == PROCESSOR else f"not with {provider.name}"
        raise BundleError(f"{path} cannot be loaded ({_first_line(error)}); {advice}") from error
    # One whose libraries or device are missing is left out without an error.
    if provider.name not in session.get_providers():
        raise BundleError(f"{provider.name} cannot be started: its libraries or its device are missing")
    return session


def _provider_options(provider: Provider, threads: int | None) -> dict[str, str]:
    """Return a provider's options; OpenVINO does not heed the session's number of threads."""
    openvino = provider.name == "OpenVINOExecutionProvider"
    return {**({"num_of_threads": str(threads or available_cores())} if openvino else {}), **provider.options}


def _session_options(threads: int | None, extended_only: bool, once: bool) -> onnxruntime.SessionOptions:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    # The last level lays convolutions out anew. A transformer has one, gains nothing, and pays 15 MB.
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if extended_only else levels.ORT_ENABLE_ALL
    # Keeps what a batch needed until the end of the session, on a box with 2 GB.
    options.enable_cpu_mem_arena = False
    # Waiting threads would burn the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "1" if once else "0")
    errors_only = 3
    options.log_severity_level = errors_only
    return options


def is_transformer(manifest: Manifest) -> bool:
    """Whether the one convolution of an 8-bit encoder is that which cuts the image into patches."""
    quantization = manifest.quantization
    return quantization is not None and quantization.kept_in_float.get("Conv", 0) <= 1


def _has_float_products_inside(manifest: Manifest) -> bool:
    """Whether an 8-bit encoder has more float products than the first convolution and the last projection."""
    quantization = manifest.quantization
    return quantization is not None and (
        not is_transformer(manifest) or sum(quantization.kept_in_float.values()) > 2
    )


def _agrees(found: tuple[str, str, list[int | str]], expected: tuple[str, str, list[int | None]]) -> bool:
    """Whether name, type and shape are as expected; None stands for a dimension that is not fixed."""
    same_rank = len(found[2]) == len(expected[2])
    return found[:2] == expected[:2] and same_rank and all(map(_dimension_agrees, found[2], expected[2]))


def _dimension_agrees(found: int | str | None, expected: int | None) -> bool:
    """A symbolic dimension agrees with any; a fixed one only with its own size."""
    return not isinstance(found, int) or found == expected


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]

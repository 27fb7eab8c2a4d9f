"""The classifier in memory: a bundle's encoder and a site's heads, opened once, asked many times. No PyTorch.

path or array -> pixels as the encoder takes them -> embedding -> heads, ensemble, assurance -> Prediction
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.extraction import SkippedImage
from fedmedclip.edge_client.features.new_prompts import open_with_prompts
from fedmedclip.edge_client.features.opening import open_with_encoder
from fedmedclip.edge_client.features.provider_choice import open_encoder
from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE
from fedmedclip.edge_client.heads.assurance import ANSWERED, Outcome
from fedmedclip.edge_client.heads.heads_file import Heads, load_trusted_heads
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.opening import UnreadableImageError
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.reading import decode_images
from fedmedclip.edge_client.inference.answers import Classification, answers_to, classifications
from fedmedclip.edge_client.inference.provenance import Provenance, provenance_of
from fedmedclip.edge_client.inference.regions import Regions, regions_of
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.trust.decision import trust_of_user

Pixels = npt.NDArray[np.uint8]
Images = str | Path | Pixels | Sequence[str | Path | Pixels]
"""A path or an array, or a sequence of them.

A path is a file, a folder (with its sub-folders), a pattern such as `scans/*.dcm` or an `.npz` archive. An
array is uint8: one image (height, width) grey or (height, width, 3) RGB, or several (N, height, width, 3).
"""

_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """One image's result: the ensemble's where there is a private head, else the best that there is.

    Where the heads' site found zero-shot better on its validation split, it is zero-shot's.

    `path` is None for an array. `probabilities` by class name sum to 1; `label` is the most probable class,
    or None where `outcome` is "unlike the training images": then there is no answer, and the probabilities
    are for research only. `ensemble_weight` is the private head's share in them, from 0 to 1. `milliseconds`
    is the image's share of the time for its batch: reading, encoding, classifying.

    Heads that carry an assurance give the others too. `prediction_set` are the classes that cannot be ruled
    out at `Classifier.level`; `distance` is how far the image lies from what was seen, in units of the
    largest distance that is answered. Without one each image is answered, and both are None.
    """

    path: str | None
    label: str | None
    probabilities: dict[str, float]
    ensemble_weight: float
    milliseconds: float
    outcome: Outcome = ANSWERED
    prediction_set: tuple[str, ...] | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Explanation:
    """One image's result, and which of its regions carry it.

    `label` is the most probable class, which `regions` are about, and `probability` its own. `pixels` is the
    image as the encoder took it, uint8 (height, width, 3), and `embedding` float32 (D,) what it gave.
    """

    prediction: Prediction
    label: str
    probability: float
    regions: Regions
    pixels: Pixels
    embedding: npt.NDArray[np.float32]


class Classifier:
    """An open bundle with the heads of a site or, without any, zero-shot. `fedmedclip.load` makes it.

    `provenance` says which bundle, heads and software answer.

    Several threads may ask at the same time. Closing it, which leaving its `with` block does, frees the
    encoder's memory.
    """

    def __init__(self, bundle: Bundle, encoder: Encoder, heads: Heads | None, provenance: Provenance) -> None:
        self.bundle = bundle
        self.heads = heads
        self.provenance = provenance
        self._encoder = encoder

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return tuple(self.bundle.manifest.class_names)

    @property
    def level(self) -> float | None:
        """How often prediction sets hold the true class; None where the heads carry no assurance."""
        if self.heads is None or self.heads.assurance is None:
            return None
        return self.heads.assurance.metadata.level

    def encode(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return the embeddings, float32 (N, D), of images as the encoder takes them.

        `pixels` uint8 (N, height, width, 3), as `protocol.bundle.preprocessing.fit` makes them.
        """
        return self._encoder.encode(pixels)

    def classify(self, embeddings: npt.NDArray[np.float32]) -> list[Classification]:
        """Return what the heads say of embeddings, float32 (N, D): `predict`, when the encoder has run."""
        return list(classifications(answers_to(self.heads, self.bundle, embeddings), self.class_names))

    @property
    def provider(self) -> str:
        """The execution provider that computes the embeddings."""
        return self._encoder.provider

    def predict(self, images: Images, *, skip_unreadable: bool = False) -> list[Prediction]:
        """Classify images, in the order given; those of a folder in the order of their names.

        Raises InvalidInputError when a path names no image, or an array is not one; UnreadableImageError for
        the first file that cannot be read, or with `skip_unreadable` leaves such files out.
        """
        with closing(self._ready(images, skip_unreadable)) as ready:
            return list(self._predictions(ready))

    def embed(self, images: Images, *, skip_unreadable: bool = False) -> npt.NDArray[np.float32]:
        """Return the encoder's embeddings, float32 (N, D), of images as `predict` takes them.

        Raises what `predict` does.
        """
        with closing(self._ready(images, skip_unreadable)) as ready:
            parts = [self.encode(_stacked(batch)) for batch in _batches(ready)]
        return np.concatenate([np.empty((0, self.bundle.manifest.embedding_size), np.float32), *parts])

    def explain(
        self,
        image: str | Path | Pixels,
        *,
        seconds: float | None = None,
        settings: ReaderSettings = DEFAULT_READING,
    ) -> Explanation:
        """Classify one image, a path or an array as `predict` takes them, and say which regions carry that.

        It takes 61 runs of the encoder; with `seconds`, as many as then fit (`regions`). Research use only.

        Raises what `predict` does, and InvalidInputError for what is more than one image.
        """
        with closing(self._ready([image], False, settings)) as ready:
            batch = list(islice(ready, 2))
        if len(batch) != 1:
            what = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else str(image)
            raise InvalidInputError(f"{what} has {'more' if batch else 'less'} than one image; give one")
        (prediction,) = self._predictions(batch)
        label = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
        regions = self.regions(batch[0].pixels, seconds)
        (embedding,) = self.encode(_stacked(batch))
        probability = prediction.probabilities[label]
        return Explanation(prediction, label, probability, regions, batch[0].pixels, embedding)

    def regions(self, pixels: Pixels, seconds: float | None = None) -> Regions:
        """Return which regions carry the answer to an image as the encoder takes it.

        `pixels` is uint8 (height, width, 3) of the bundle's own size. With `seconds`, finer scales that would
        end later are left out; 10 runs of the encoder are the least.

        Raises BundleError when the encoder fails.
        """
        return regions_of(self._probabilities, pixels, seconds)

    def predict_files(
        self, paths: Sequence[Path], skipped: list[SkippedImage], settings: ReaderSettings = DEFAULT_READING
    ) -> Iterator[Prediction]:
        """Yield a prediction per readable file or address, in order; the others are added to `skipped`.

        Few images are in memory at a time, however many there are.
        """
        with closing(self._read(paths, skipped, settings)) as ready:
            yield from self._predictions(ready)

    def close(self) -> None:
        """Release the encoder and its memory; safe to call twice."""
        self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _predictions(self, ready: Iterable["_Ready"]) -> Iterator[Prediction]:
        started = time.perf_counter()
        for batch in _batches(ready):
            answers = self.classify(self.encode(_stacked(batch)))
            now = time.perf_counter()
            milliseconds = round((now - started) * 1000 / len(batch), 3)
            started = now
            for image, found in zip(batch, answers, strict=True):
                yield Prediction(image.path, **vars(found), milliseconds=milliseconds)

    def _probabilities(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        return answers_to(self.heads, self.bundle, self.encode(pixels)).probabilities

    def _ready(
        self, images: Images, skip_unreadable: bool, settings: ReaderSettings = DEFAULT_READING
    ) -> Generator["_Ready", None, None]:
        skipped: list[SkippedImage] | None = [] if skip_unreadable else None
        paths: list[Path] = []
        for image in [images] if isinstance(images, str | Path | np.ndarray) else images:
            if not isinstance(image, np.ndarray):
                paths += list_images([image], settings)
                continue
            yield from self._read(paths, skipped, settings)
            paths = []
            for picture in _pictures(image):
                yield _Ready(None, fit(picture, self.bundle.manifest.preprocessing))
        yield from self._read(paths, skipped, settings)

    def _read(
        self, paths: Sequence[Path], skipped: list[SkippedImage] | None, settings: ReaderSettings
    ) -> Generator["_Ready", None, None]:
        """Yield what can be read; without a list for the others, the first of them raises its error."""
        with closing(decode_images(paths, self.bundle.manifest.preprocessing, settings)) as decoded:
            for image in decoded:
                if not isinstance(image, UnreadableImageError):
                    yield _Ready(str(image.path), image.pixels)
                elif skipped is None:
                    raise image
                else:
                    skipped.append(SkippedImage(image.path, image.reason))


@dataclass(frozen=True)
class _Ready:
    """An image as the encoder takes it, uint8 (height, width, 3)."""

    path: str | None
    pixels: Pixels


def load(
    bundle: str | Path,
    heads: str | Path | None = None,
    *,
    prompts: str | Path | None = None,
    threads: int | None = None,
    once: bool = False,
    providers: Sequence[str] = PROCESSOR_ALONE,
    keys: Sequence[str] = (),
    insecure: bool = False,
) -> Classifier:
    """Open a bundle and the heads of a site, and return the classifier.

    Without `heads` it classifies zero-shot; with `prompts`, a `classes.toml`, into classes of your own, where
    the bundle has a text tower. `threads` defaults to the cores that this process may use; `once` is the
    quickest way to one image alone, whose embedding may then differ in its last bits. PyTorch is not needed.

    `providers` are ONNX Runtime's execution providers in the order in which they are wanted, with options as
    in `["OpenVINOExecutionProvider:device_type=GPU"]`: the first that is installed and passes the bundle's
    self-test is used, and the processor where none does.

    Bundle and heads have to be signed by a key that this user trusts (`fedmedclip trust`), or by one of
    `keys`, 64 hexadecimal digits or files with them; `insecure` takes them as they are.

    Raises BundleError and HeadError for files that are missing, damaged, not trusted or of another bundle,
    and InvalidInputError for an unknown provider, prompts that cannot be used, or heads and prompts together.
    """
    heads_file = None if heads is None else Path(heads)
    trusted = trust_of_user(keys, insecure=insecure)
    if prompts is None:
        opened, encoder = open_with_encoder(
            Path(bundle), threads, trusted, together=once, providers=providers
        )
    else:
        opened = open_with_prompts(Path(bundle), Path(prompts), heads_file, threads, trusted)
        encoder = open_encoder(opened, threads, providers, together=once)
    try:
        found = None if heads_file is None else load_trusted_heads(heads_file, opened, trusted)
        prompts_file = None if prompts is None else Path(prompts)
        provenance = provenance_of(opened, found, heads_file, prompts_file)
        return Classifier(opened, encoder, found, provenance)
    except BaseException:
        encoder.close()
        raise


def _batches(ready: Iterable[_Ready]) -> Iterator[list[_Ready]]:
    images = iter(ready)
    while batch := list(islice(images, _BATCH)):
        yield batch


def _stacked(batch: Sequence[_Ready]) -> Pixels:
    return np.stack([image.pixels for image in batch])


def _pictures(array: Pixels) -> Iterator[Image.Image]:
    """Yield the images of an array. Raises InvalidInputError for another dtype or shape."""
    several = array if array.ndim == 4 else array[None]
    one = several.shape[1:]
    if array.dtype != np.uint8 or len(one) not in (2, 3) or one[2:] not in ((), (3,)) or 0 in one:
        raise InvalidInputError(
            f"an array of {array.dtype} {array.shape} is no image; give uint8 (height, width), "
            "(height, width, 3) or (N, height, width, 3), scaled to 0 to 255"
        )
    for pixels in several:
        yield Image.fromarray(pixels).convert("RGB")

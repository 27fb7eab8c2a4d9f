"""Embeddings of image files: taken from the feature store, or computed once and put there."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.feature_store import Embedding, FeatureStore
from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE
from fedmedclip.edge_client.images.opening import ImageIdentity, UnreadableImageError
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.reading import DecodedImage, decode_images, identify_images
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    from fedmedclip.edge_client.features.encoder import Encoder

Progress = Callable[[int, int], None]
# An embedding, or the reason why there is none.
Outcome = Embedding | str

_LOOKED_UP_AT_ONCE = 1000


@dataclass(frozen=True)
class SkippedImage:
    """An image file that is not used, and the short reason why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FeatureExtraction:
    """The embeddings of the images that could be read, in the order of the paths given.

    `embeddings` is float32 (N, D); `content_hashes` (of the files), `keys` (in the feature store), `paths`
    and `positions` (in the list of paths that was given) have N entries. Frames of one file share its content
    hash, not their keys. `encoded` counts the images that the encoder had to run for.
    """

    embeddings: npt.NDArray[np.float32]
    content_hashes: list[bytes]
    keys: list[bytes]
    paths: list[Path]
    positions: list[int]
    skipped: list[SkippedImage]
    encoded: int


def extract_features(
    paths: Sequence[Path],
    bundle: Bundle,
    store: FeatureStore,
    *,
    settings: ReaderSettings = DEFAULT_READING,
    batch_size: int = 16,
    threads: int | None = None,
    providers: Sequence[str] = PROCESSOR_ALONE,
    progress: Progress | None = None,
) -> FeatureExtraction:
    """Return the embeddings of images, running the encoder only for those that the store lacks.

    Each batch is stored before the next one runs, so that a kill costs one batch at most. The encoder is
    loaded only when an image needs it, and released at the end. `threads` and `providers` are the encoder's;
    `progress(done, total)` counts the images that have their embedding or were skipped.

    Raises BundleError when the encoder cannot be used and StorageError when the store cannot; what is the
    fault of one file only skips that one.
    """
    embeddings = np.empty((len(paths), bundle.manifest.embedding_size), dtype=np.float32)
    identities, reasons = _identify(paths, settings)
    waiting: dict[bytes, list[int]] = {}
    for position, identity in identities.items():
        waiting.setdefault(identity.key, []).append(position)
    done = len(reasons)

    def settle(outcomes: Mapping[bytes, Outcome]) -> None:
        nonlocal done
        for key, outcome in outcomes.items():
            positions = waiting.pop(key)
            done += len(positions)
            if isinstance(outcome, str):
                reasons.update(dict.fromkeys(positions, outcome))
            else:
                embeddings[positions] = outcome
        if progress:
            progress(done, len(paths))

    settle({})
    for found in _look_up(list(waiting), bundle, store):
        settle(found)
    missing = {key: paths[positions[0]] for key, positions in waiting.items()}
    encoded = 0
    for outcomes in _encode(missing, bundle, store, settings, batch_size, threads, providers):
        encoded += sum(not isinstance(outcome, str) for outcome in outcomes.values())
        settle(outcomes)

    kept = [position for position in identities if position not in reasons]
    return FeatureExtraction(
        embeddings=embeddings[kept] if reasons else embeddings,
        content_hashes=[identities[position].content_hash for position in kept],
        keys=[identities[position].key for position in kept],
        paths=[paths[position] for position in kept],
        positions=kept,
        skipped=[SkippedImage(paths[position], reason) for position, reason in sorted(reasons.items())],
        encoded=encoded,
    )


def refuse_skipped(skipped: Sequence[SkippedImage]) -> None:
    """For strict runs: raise InvalidInputError when any image was skipped."""
    if skipped:
        first = skipped[0]
        raise InvalidInputError(
            f"strict: image {first.path} cannot be used: {first.reason} ({summarize_skipped(skipped)}); "
            "mend or remove what cannot be used, or run without strict"
        )


def summarize_skipped(skipped: Iterable[SkippedImage]) -> str:
    """Return one line such as "12 skipped: 9 palette, 3 truncated", or "none skipped"."""
    counts = Counter(image.reason for image in skipped)
    if not counts:
        return "none skipped"
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"{counts.total()} skipped: {reasons}"


def _identify(
    paths: Sequence[Path], settings: ReaderSettings
) -> tuple[dict[int, ImageIdentity], dict[int, str]]:
    """Return by position the identity of each image, and of those that cannot be read why not."""
    identities: dict[int, ImageIdentity] = {}
    reasons: dict[int, str] = {}
    with closing(identify_images(paths, settings)) as results:
        for position, result in enumerate(results):
            if isinstance(result, UnreadableImageError):
                reasons[position] = result.reason
            else:
                identities[position] = result
    return identities, reasons


def _look_up(keys: Sequence[bytes], bundle: Bundle, store: FeatureStore) -> Iterator[dict[bytes, Embedding]]:
    """Yield what the store has, a bounded number at a time."""
    shape = (bundle.manifest.embedding_size,)
    for start in range(0, len(keys), _LOOKED_UP_AT_ONCE):
        found = store.get_many(bundle.digest, keys[start : start + _LOOKED_UP_AT_ONCE])
        yield {key: stored for key, stored in found.items() if stored.shape == shape}


def _encode(
    missing: Mapping[bytes, Path],
    bundle: Bundle,
    store: FeatureStore,
    settings: ReaderSettings,
    batch_size: int,
    threads: int | None,
    providers: Sequence[str],
) -> Generator[Mapping[bytes, Outcome], None, None]:
    """Yield the embeddings of images by key, each batch stored already; or why there is none."""
    with ExitStack() as opened:
        preprocessing = bundle.manifest.preprocessing
        decoded = decode_images(missing.values(), preprocessing, settings, appearances=True)
        images = opened.enter_context(closing(decoded))

        @cache
        def encoder() -> "Encoder":
            # Imported and loaded only now: with a full store, ONNX Runtime's memory is never taken.
            from fedmedclip.edge_client.features.provider_choice import open_encoder

            return opened.enter_context(open_encoder(bundle, threads, providers))

        def encode(batch: Sequence[DecodedImage]) -> dict[bytes, Embedding]:
            embeddings = encoder().encode(np.stack([image.pixels for image in batch]))
            by_key = {image.key: row for image, row in zip(batch, embeddings, strict=True)}
            store.put_many(bundle.digest, by_key)
            store.put_appearances({image.key: image.appearance for image in batch if image.appearance})
            return by_key

        batch: list[DecodedImage] = []
        for key, image in zip(missing, images, strict=True):
            if isinstance(image, UnreadableImageError):
                yield {key: image.reason}
            elif image.key != key:
                yield {key: "changed while it was read"}
            else:
                batch.append(image)
            if len(batch) == batch_size:
                yield encode(batch)
                batch = []
        if batch:
            yield encode(batch)

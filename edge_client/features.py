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

from edge_client.feature_store import Embedding, FeatureStore
from edge_client.images import UnreadableImageError
from edge_client.reading import DecodedImage, decode_images, hash_images
from protocol.bundle import Bundle

if TYPE_CHECKING:
    from edge_client.encoder import Encoder

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

    `embeddings` is float32 (N, D); `content_hashes`, `paths` and `positions` (in the list of paths that was
    given) have N entries. `encoded` counts the images that the encoder had to run for.
    """

    embeddings: npt.NDArray[np.float32]
    content_hashes: list[bytes]
    paths: list[Path]
    positions: list[int]
    skipped: list[SkippedImage]
    encoded: int


def extract_features(
    paths: Sequence[Path],
    bundle: Bundle,
    store: FeatureStore,
    *,
    batch_size: int = 16,
    threads: int | None = None,
    progress: Progress | None = None,
) -> FeatureExtraction:
    """Return the embeddings of image files, running the encoder only for contents that the store lacks.

    Each batch is stored before the next one runs, so that a kill costs one batch at most. The encoder is
    loaded only when an image needs it, and released at the end. `threads` are the encoder's;
    `progress(done, total)` counts the images that have their embedding or were skipped.

    Raises BundleError when the encoder cannot be used and StorageError when the store cannot; what is the
    fault of one file only skips that one.
    """
    embeddings = np.empty((len(paths), bundle.manifest.embedding_size), dtype=np.float32)
    hashes, reasons = _hash(paths)
    waiting: dict[bytes, list[int]] = {}
    for position, content_hash in enumerate(hashes):
        if content_hash is not None:
            waiting.setdefault(content_hash, []).append(position)
    done = len(reasons)

    def settle(outcomes: Mapping[bytes, Outcome]) -> None:
        nonlocal done
        for content_hash, outcome in outcomes.items():
            positions = waiting.pop(content_hash)
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
    missing = {content_hash: paths[positions[0]] for content_hash, positions in waiting.items()}
    encoded = 0
    for outcomes in _encode(missing, bundle, store, batch_size, threads):
        encoded += sum(not isinstance(outcome, str) for outcome in outcomes.values())
        settle(outcomes)

    kept = {position: content_hash for position, content_hash in enumerate(hashes) if content_hash}
    for position in reasons:
        kept.pop(position, None)
    return FeatureExtraction(
        embeddings=embeddings[list(kept)] if reasons else embeddings,
        content_hashes=list(kept.values()),
        paths=[paths[position] for position in kept],
        positions=list(kept),
        skipped=[SkippedImage(paths[position], reason) for position, reason in sorted(reasons.items())],
        encoded=encoded,
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


def _hash(paths: Sequence[Path]) -> tuple[list[bytes | None], dict[int, str]]:
    """Return the content hash of each file, None where it cannot be read; and by position why not."""
    hashes: list[bytes | None] = []
    reasons: dict[int, str] = {}
    with closing(hash_images(paths)) as results:
        for position, result in enumerate(results):
            if isinstance(result, UnreadableImageError):
                reasons[position] = result.reason
                hashes.append(None)
            else:
                hashes.append(result)
    return hashes, reasons


def _look_up(
    content_hashes: Sequence[bytes], bundle: Bundle, store: FeatureStore
) -> Iterator[dict[bytes, Embedding]]:
    """Yield what the store has, a bounded number at a time."""
    shape = (bundle.manifest.embedding_size,)
    for start in range(0, len(content_hashes), _LOOKED_UP_AT_ONCE):
        found = store.get_many(bundle.digest, content_hashes[start : start + _LOOKED_UP_AT_ONCE])
        yield {content_hash: stored for content_hash, stored in found.items() if stored.shape == shape}


def _encode(
    missing: Mapping[bytes, Path], bundle: Bundle, store: FeatureStore, batch_size: int, threads: int | None
) -> Generator[Mapping[bytes, Outcome], None, None]:
    """Yield the embeddings of images by content hash, each batch stored already; or why there is none."""
    with ExitStack() as opened:
        images = opened.enter_context(closing(decode_images(missing.values(), bundle.manifest.preprocessing)))

        @cache
        def encoder() -> "Encoder":
            # Imported and loaded only now: with a full store, ONNX Runtime's memory is never taken.
            from edge_client.encoder import Encoder

            return opened.enter_context(Encoder(bundle, threads))

        def encode(batch: Sequence[DecodedImage]) -> dict[bytes, Embedding]:
            embeddings = encoder().encode(np.stack([image.pixels for image in batch]))
            by_hash = {image.content_hash: row for image, row in zip(batch, embeddings, strict=True)}
            store.put_many(bundle.digest, by_hash)
            return by_hash

        batch: list[DecodedImage] = []
        for content_hash, image in zip(missing, images, strict=True):
            if isinstance(image, UnreadableImageError):
                yield {content_hash: image.reason}
            elif image.content_hash != content_hash:
                yield {content_hash: "changed while it was read"}
            else:
                batch.append(image)
            if len(batch) == batch_size:
                yield encode(batch)
                batch = []
        if batch:
            yield encode(batch)

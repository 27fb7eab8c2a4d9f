"""What a site's images look like: taken from the feature store, or seen once and put there."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from fedmedclip.edge_client.features.extraction import Progress
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.images.appearance import THUMBNAIL_SIDE, Appearance, Appearances
from fedmedclip.edge_client.images.opening import UnreadableImageError
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.reading import view_images

_STORED_AT_ONCE = 500


def load_appearances(
    keys: Sequence[bytes],
    paths: Sequence[Path],
    store: FeatureStore,
    *,
    settings: ReaderSettings = DEFAULT_READING,
    progress: Progress | None = None,
) -> Appearances:
    """Return the appearances of N images, given by their keys in the store and their paths.

    Whoever encodes images stores their appearances in the same pass. Images that the store has from an
    earlier version are decoded once more here; `progress(done, total)` counts these. What cannot be decoded
    any more looks like nothing else. Raises StorageError.
    """
    found = store.get_appearances(dict.fromkeys(keys))
    missing = {key: path for key, path in zip(keys, paths, strict=True) if key not in found}
    waiting: dict[bytes, Appearance] = {}
    with closing(view_images(missing.values(), settings)) as views:
        for done, (key, view) in enumerate(zip(missing, views, strict=True), start=1):
            if isinstance(view, UnreadableImageError) or view[0] != key:
                found[key] = _nothing(key)
            else:
                found[key] = waiting[key] = view[1]
            if len(waiting) == _STORED_AT_ONCE:
                store.put_appearances(waiting)
                waiting = {}
            if progress:
                progress(done, len(missing))
    if waiting:
        store.put_appearances(waiting)
    return Appearances.of([found[key] for key in keys])


def _nothing(key: bytes) -> Appearance:
    return Appearance(key[:16], np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8))

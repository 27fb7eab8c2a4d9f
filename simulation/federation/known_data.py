"""Data sets on which constants of methods were chosen, told by their images: a result on one says so."""

import hashlib
from collections.abc import Sequence

import numpy as np

from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.phantoms.anatomy import FINDINGS

PHANTOMS = "phantoms"

# SHA-256 over the sorted content hashes of each hospital: one of them is enough.
_KNOWN_SITES = {
    "84c89e76280ff05d194b62664f19a68c00c6a4e9eedd2767587416d8ba17c638": "brain_tumor",
    "e6b9ff4eca9d6ed212b627519029f99684d6f156ce4d130e6f2b9a04fc954a9d": "brain_tumor",
    "46eb9656575d9f95dcc7a312e980f54243ee3d2eef089b378c18c21b2e7f8804": "brain_tumor",
}


def name_of_data(pool: FeaturePool, class_names: Sequence[str]) -> str:
    """Return the name of the data set that some site's images are of, empty for one that is not known.

    Phantoms are told by their classes, since the bytes of an image depend on the library that wrote it.
    """
    if set(class_names) == set(FINDINGS):
        return PHANTOMS
    known = (_KNOWN_SITES.get(site_digest(pool, site)) for site in range(len(pool.site_names)))
    return next(filter(None, known), "")


def site_digest(pool: FeaturePool, site: int) -> str:
    """Return what names a site's images, whatever their order and labels."""
    hashes = sorted(pool.content_hashes[image] for image in np.flatnonzero(pool.sites == site))
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def chosen_on(method: str) -> tuple[str, ...]:
    """Return the data sets on which constants of a method, or its default settings, were chosen."""
    return () if method == ZERO_SHOT else site_method(method).constants_chosen_on

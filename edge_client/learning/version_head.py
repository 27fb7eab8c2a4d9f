"""The private head that belongs to a version of the shared head."""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.method import Adapted, StatisticsMethod
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays


def adapts_to_versions(method: str) -> bool:
    """Whether a method makes its private head anew from every version.

    Raises InvalidInputError for an unknown method.
    """
    return isinstance(site_method(method), StatisticsMethod)


def adapted(
    method: str,
    shared: NamedArrays,
    images: OwnImages,
    class_embeddings: npt.NDArray[np.float32],
    logit_scale: float,
    seed: int,
) -> Adapted:
    """Return what a method makes of a version and a site's own images, labelled or not.

    Raises InvalidInputError for a method that cannot.
    """
    found = site_method(method)
    if not isinstance(found, StatisticsMethod):
        raise InvalidInputError(
            f"heads of method {method!r} cannot be adapted to a site's images; federate with `one-message`"
        )
    own = OwnImages(found.taken(images.embeddings), images.labels, images.groups, images.shown)
    return found.adapt(shared, own, class_embeddings, logit_scale, seed)

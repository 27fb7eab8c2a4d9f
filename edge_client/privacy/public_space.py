"""The few directions in which a private release speaks: where classes differ, by what is public alone.

Noise is added to every number that leaves. In all D directions it is as long as the sums themselves; but C
class means span no more than C - 1 directions, and zero-shot says of the bundle's reference set, without a
label, nearly which: the span of its soft class means. They cost nothing, for no hospital's image is in them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.protocol.errors import InvalidInputError

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

CLIPPED = 0.9
"""Share of the reference's images that a projection's longest allowed length leaves as they are."""
MINIMUM_IMAGES = 2
_FLAT = 1e-9


@dataclass(frozen=True)
class PublicSpace:
    """K directions about a centre, float64: coordinates are (embeddings - centre) @ directions / radius.

    `centre` (D,) is the reference's mean, `directions` (D, K) orthonormal columns, `radius` the length in
    them to which an image is clipped, so that coordinates lie in the unit ball. In coordinates: `class_means`
    (C, K), what zero-shot takes for the classes' means, and `scatter` (K, K) within these. `across` (D, D) is
    the reference's covariance in all other directions, in units of the embeddings.
    """

    centre: Doubles
    directions: Doubles
    radius: float
    class_means: Doubles
    scatter: Doubles
    across: Doubles

    def clipped(self, embeddings: Floats) -> Doubles:
        """Return coordinates (N, K) of rows (N, D), none longer than 1."""
        found = (embeddings - self.centre) @ self.directions / self.radius
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        within: Doubles = found / np.maximum(lengths, 1)
        return within

    def embeddings_of(self, coordinates: Doubles) -> Doubles:
        """Return rows (N, D) at these coordinates (N, K); in all other directions at the centre."""
        found: Doubles = self.centre + self.radius * coordinates @ self.directions.T
        return found

    def scatter_of(self, scatter: Doubles) -> Doubles:
        """Return a scatter (D, D): `scatter` (K, K) in the directions, the reference's across them."""
        found: Doubles = self.across + self.directions @ (self.radius**2 * scatter) @ self.directions.T
        return found


def space_of(reference: Floats, class_embeddings: Floats, logit_scale: float) -> PublicSpace:
    """Return the space of public embeddings (n, D), class embeddings (C, D) and the model's logit scale.

    Raises InvalidInputError for one class, or fewer than `MINIMUM_IMAGES` reference images.
    """
    rows = reference.astype(np.float64)
    classes = len(class_embeddings)
    if classes < 2 or len(rows) < MINIMUM_IMAGES:
        raise InvalidInputError(
            f"private statistics need 2 classes and a reference set of {MINIMUM_IMAGES} public images in the "
            f"bundle, there are {classes} and {len(rows)}; make one with `fedmedclip reference`"
        )
    centre = rows.mean(axis=0)
    soft = softmax(logit_scale * (rows @ class_embeddings.T.astype(np.float64)))
    means = soft.T @ (rows - centre) / soft.sum(axis=0)[:, None]
    _, lengths, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    kept = max(1, int((lengths[: classes - 1] > _FLAT * lengths[0]).sum()))
    chosen = directions[:kept].T
    inside = (rows - centre) @ chosen
    radius = max(float(np.quantile(np.linalg.norm(inside, axis=1), CLIPPED)), _FLAT)
    coordinates, class_means = inside / radius, means @ chosen / radius
    # sum over images and classes of soft * (coordinate - class mean) squared, as a matrix
    explained = (class_means.T * soft.sum(axis=0)) @ class_means
    scatter = (coordinates.T @ coordinates - explained) / len(rows)
    outside = rows - centre - inside @ chosen.T
    across = outside.T @ outside / len(rows)
    return PublicSpace(centre, chosen, radius, class_means, scatter, across)

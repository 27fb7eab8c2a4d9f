"""What a private site tells: counts, sums and second moments of its images, in one Gaussian release.

Adding or removing an image moves the sum of the images' vectors (`edge_client.privacy.sums`) by `LONGEST` at
most. Of a patient the vectors are summed first and the sum clipped to that length, so that a patient moves
it no farther. Noise of `mechanism.noise_multiplier` times `LONGEST` on every number of the sum gives
(epsilon, delta) exactly. All that follows (`edge_client.privacy.denoising`) sees only the noisy sum.
"""

from dataclasses import dataclass

import numpy as np

from fedmedclip.edge_client.heads.whitening import Floats, Labels
from fedmedclip.edge_client.privacy.denoising import denoised
from fedmedclip.edge_client.privacy.mechanism import noise_multiplier
from fedmedclip.edge_client.privacy.noise import Noise
from fedmedclip.edge_client.privacy.public_space import Doubles, PublicSpace
from fedmedclip.edge_client.privacy.sums import LONGEST, ClassSums, length_of, sums_of, vectors_of
from fedmedclip.edge_client.privacy.units import Unit, protected_units
from fedmedclip.protocol.heads.head import NamedArrays


@dataclass(frozen=True)
class Terms:
    """What a release has to keep to: (epsilon, delta) for whom.

    `part` is the part of the budget that this release takes beside others of the same images: Gaussian
    releases whose parts sum to 1 together cost (epsilon, delta) exactly, also when the later ones depend on
    the earlier (Dong, Roth and Su 2022, corollary 3.3). `noise_share` is the share of the noise's variance
    that this site adds: less than 1 only where its numbers are never seen but in a sum with those of other
    sites, of which so many must be in it that their shares make up 1.
    """

    epsilon: float
    delta: float
    unit: Unit = "image"
    images_per_patient: int = 1
    part: float = 1.0
    noise_share: float = 1.0

    def deviation(self, sensitivity: float) -> float:
        """Return the standard deviation of this site's noise for an L2 sensitivity."""
        whole = noise_multiplier(self.epsilon, self.delta) * sensitivity
        return whole * float(np.sqrt(self.noise_share / self.part))


def private_statistics(
    embeddings: Floats,
    labels: Labels,
    groups: Labels,
    classes: int,
    space: PublicSpace,
    terms: Terms,
    noise: Noise,
    minimum_group_size: float = 0,
) -> tuple[NamedArrays, float]:
    """Return a site's shared statistics as arrays, and of how many images, or patients, they are: released.

    `embeddings` float32 (N, D), `labels` int64 (N,), `groups` int64 (N,) numbers of patients. The noise must
    be secret: whoever can draw it again takes it off. Raises InvalidInputError for terms without meaning.
    """
    sums = private_sums(embeddings, labels, groups, classes, space, terms, noise)
    return denoised(sums, space, minimum_group_size), sums.images


def private_sums(
    embeddings: Floats,
    labels: Labels,
    groups: Labels,
    classes: int,
    space: PublicSpace,
    terms: Terms,
    noise: Noise,
) -> ClassSums:
    """Return what `private_statistics` makes its arrays of: linear, so that sites' can be added up."""
    exact = bounded_sum(embeddings, labels, groups, classes, space, terms)
    deviation = terms.deviation(LONGEST)
    noisy = exact + noise.normal(0.0, deviation, exact.shape)
    return sums_of(noisy, classes, space.directions.shape[1], deviation)


def bounded_sum(
    embeddings: Floats, labels: Labels, groups: Labels, classes: int, space: PublicSpace, terms: Terms
) -> Doubles:
    """Return the sum (L,) of a site's vectors without noise; a unit moves it by `LONGEST` at most."""
    if not len(labels):
        return np.zeros(length_of(classes, space.directions.shape[1]))
    vectors = vectors_of(space.clipped(embeddings), labels, classes)
    total: Doubles = clipped_by_unit(vectors, groups, terms, LONGEST).sum(axis=0)
    return total


def clipped_by_unit(vectors: Doubles, groups: Labels, terms: Terms, longest: float) -> Doubles:
    """Return a vector for each image, or patient, none longer than `longest`."""
    units = protected_units(groups, terms.unit, terms.images_per_patient)
    of_units = np.zeros((units.number, vectors.shape[1]))
    np.add.at(of_units, units.members, vectors[units.rows])
    lengths = np.linalg.norm(of_units, axis=1, keepdims=True)
    within: Doubles = of_units / np.maximum(lengths / longest, 1)
    return within

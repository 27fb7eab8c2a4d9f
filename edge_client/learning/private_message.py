"""What a site of `one-message` says under `[privacy]`: one release, and evidence that follows from it."""

import numpy as np

from fedmedclip.edge_client.heads.scanner_offset import Mixing
from fedmedclip.edge_client.heads.whitening import Floats, Labels
from fedmedclip.edge_client.learning.evidence import marks_array
from fedmedclip.edge_client.learning.own_folds import evidence_for
from fedmedclip.edge_client.privacy import release
from fedmedclip.edge_client.privacy.mixing import mixing_factors
from fedmedclip.edge_client.privacy.noise import Noise
from fedmedclip.edge_client.privacy.public_space import PublicSpace, space_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.messages import PrivacyTerms


def private_statistics(
    embeddings: Floats,
    labels: Labels,
    groups: Labels,
    class_embeddings: Floats,
    scale: float,
    terms: PrivacyTerms,
    reference: Floats | None,
    noise: Noise,
) -> tuple[NamedArrays, int]:
    """Return the shared arrays and number of images of one private release (`PrivateStatistics`)."""
    if reference is None:
        raise InvalidInputError(
            "private statistics speak in directions of a public reference set, and the bundle has none; "
            "make one with `fedmedclip reference`"
        )
    space = space_of(reference, class_embeddings, scale)
    released, images = release.private_statistics(
        embeddings,
        labels,
        groups,
        len(class_embeddings),
        space,
        release.Terms(terms.epsilon, terms.delta, terms.unit, terms.images_per_patient),
        noise,
        terms.minimum_group_size,
    )
    return shared_of_release(released, space), max(1, round(images))


def shared_of_release(released: NamedArrays, space: PublicSpace) -> NamedArrays:
    """Return the shared arrays of statistics that were released, or are public.

    The evidence is none of single images: it says how zero-shot and Gaussians are mixed by how wide classes
    are in the release and in the reference. Marks would tell of images, so nothing is taken out later.
    """
    return released | {
        "marks": np.zeros(marks_array().shape, np.float32),
        "evidence": evidence_for(Mixing(*mixing_factors(released, space))),
    }

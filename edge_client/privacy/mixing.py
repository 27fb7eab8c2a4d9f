"""How much zero-shot counts beside a federation's Gaussians, without evidence from anybody's images.

Evidence of single images costs privacy, and what is left of it is noise. But how wide classes are at the
members comes with their statistics; how wide zero-shot takes them to be, the public reference says. Where
members' classes are narrower, zero-shot mixes classes up that lie apart, and the Gaussians know better.
"""

from collections.abc import Mapping

import numpy as np

from fedmedclip.edge_client.heads.whitening import Floats
from fedmedclip.edge_client.privacy.public_space import PublicSpace

ZERO_SHOT = 0.3
DISCRIMINANT = 0.08
_BOUNDS = (0.5, 5.0)


def mixing_factors(shared: Mapping[str, Floats], space: PublicSpace) -> tuple[float, float]:
    """Return the factors of zero-shot's logits and of the Gaussian discriminant's for a newcomer.

    `shared` are statistics, private or not. Both factors are chosen on the brain MRI and the phantoms.
    """
    inside = space.directions.T @ shared["scatter"].astype(np.float64) @ space.directions
    members = max(float(np.trace(inside)), 1e-12)
    narrower = float(np.clip(space.radius**2 * np.trace(space.scatter) / members, *_BOUNDS))
    return ZERO_SHOT / narrower, DISCRIMINANT * narrower

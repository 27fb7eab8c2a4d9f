"""What a site of a benchmark releases under privacy: production code, with noise that can be drawn again.

The noise comes from the run's seed, for there is nobody here to hide it from. The budget is not counted: it
is made to last for the run.
"""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.learning.private_release import (
    TrainingImages,
    count_of,
    make_release,
    steps_of_release,
)
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import sends_statistics
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


def private_release(
    plan: FederationPlan,
    pool: FeaturePool,
    site: VirtualSite,
    shared: NamedArrays,
    round_number: int,
    target: npt.NDArray[np.float32] | None = None,
    reference: npt.NDArray[np.float32] | None = None,
) -> tuple[NamedArrays, int]:
    """Return the private shared head of a round, and the number of images that is told with it.

    Statistics are released once: they are the same in each round. `target` is what an adapting method adapts
    to, `reference` the public reference set. Raises InvalidInputError for a method
    without private statistics, and as `steps_of_release` does.
    """
    assert plan.privacy is not None
    once = sends_statistics(plan.method)
    steps = steps_of_release(plan.method, plan.privacy, plan.settings, told=once)
    images = _images(pool, site, reference)
    told = None
    if not once:
        told = count_of(images.units(plan.privacy), steps[0], _noise(plan, site, 0))
    return make_release(
        plan.method,
        shared,
        images,
        plan.privacy,
        plan.settings,
        steps,
        _noise(plan, site, 0 if once else round_number),
        round_number=round_number,
        told=told,
        target=target,
    )


def told_images(
    plan: FederationPlan,
    pool: FeaturePool,
    site: VirtualSite,
    shared: NamedArrays,
    reference: npt.NDArray[np.float32] | None = None,
) -> int:
    """Return the number of images that a site tells in a run; `shared` is version 0."""
    assert plan.privacy is not None
    if sends_statistics(plan.method):
        return private_release(plan, pool, site, shared, 1, None, reference)[1]
    steps = steps_of_release(plan.method, plan.privacy, plan.settings, told=False)
    return count_of(_images(pool, site, None).units(plan.privacy), steps[0], _noise(plan, site, 0))


def _images(
    pool: FeaturePool, site: VirtualSite, reference: npt.NDArray[np.float32] | None
) -> TrainingImages:
    return TrainingImages(
        pool.embeddings[site.train],
        pool.labels[site.train],
        pool.groups[site.train],
        pool.class_embeddings,
        pool.logit_scale,
        reference,
    )


def _noise(plan: FederationPlan, site: VirtualSite, round_number: int) -> np.random.Generator:
    seed = derive_seed(plan.seed, site=site.name, round_number=round_number, purpose="privacy")
    return np.random.Generator(np.random.Philox(seed))

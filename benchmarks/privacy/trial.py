"""One site, one update, all attacks: what is found of the images that it was made of."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.privacy.attacks import (
    area_under_curve,
    class_means,
    first_layer,
    gradients,
    in_row_space,
    leading_rows,
    leverages,
    nearest,
)
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.learning.floors import Floors, train_within
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import TrainedHeads, train_round
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import change_to_send, compress
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import (
    initial_shared_head,
    sends_statistics,
    shared_head_specification,
)
from fedmedclip.simulation.federation.feature_pool import FeaturePool

Indices = npt.NDArray[np.int64]
_SEED = 0


@dataclass(frozen=True)
class Found:
    """What is found in an update: the area under the curve by attack, and whose embedding was formed.

    `named` is the share of the formed embeddings whose nearest candidate is a member, `cosine` the largest
    cosine of one with a member.
    """

    membership: dict[str, float]
    named: float
    cosine: float


@dataclass(frozen=True)
class Observed:
    """An update on its way: the head before it, what a reader decodes, and the samples that it says."""

    before: NamedArrays
    update: NamedArrays
    images: int


@dataclass(frozen=True)
class Trial:
    """A method and its settings, on the features of `pool`; floors are the site's."""

    pool: FeaturePool
    method: str
    settings: TrainingSettings
    floors: Floors

    def observe(self, images: Indices, draw: int, codecs: list[str]) -> dict[str, Observed]:
        """Return by codec the first update of a site with these training images; none where it sends none."""
        pool, method = self.pool, self.method
        classes, size = pool.class_embeddings.shape
        labels = pool.labels[images]
        if self.floors.reason_to_keep(method, labels):
            return {}
        before = initial_shared_head(method, size, _SEED, classes)
        private = initial_private_head(method, size, classes, _SEED, "site")

        def train(
            embeddings: npt.NDArray[np.float32], of_rows: Indices, groups: Indices | None
        ) -> TrainedHeads:
            return train_round(
                method,
                before,
                private,
                embeddings,
                of_rows,
                pool.class_embeddings,
                pool.logit_scale,
                self.settings,
                round_number=1,
                seed=draw,
                groups=groups,
            )

        trained = train_within(
            self.floors, method, pool.embeddings[images], labels, train, pool.groups[images]
        )
        specification = shared_head_specification(method, size, classes)
        delta = change_to_send(method, trained.shared, before, None, specification)
        number = int(self.floors.shared_images(method, labels).sum())
        return {
            codec: Observed(
                before,
                compress(delta_codec_named(codec), delta, None, b"", specification).decoded,
                number,
            )
            for codec in codecs
        }

    def attack(self, observed: Observed, members: Indices, candidates: Indices) -> Found:
        """Attack an update of a site with these `members`, which are among the `candidates`."""
        embeddings = self.pool.embeddings[candidates].astype(np.float64)
        is_member = np.isin(candidates, members)
        if sends_statistics(self.method):
            scores = leverages(observed.update, embeddings, self.pool.labels[candidates])
            estimates = np.stack([*class_means(observed.update).values()] or [np.zeros(embeddings.shape[1])])
        else:
            name = first_layer(observed.update, embeddings.shape[1])
            assert name is not None, f"{self.method} has no layer that takes embeddings"
            found = gradients(
                observed.update[name].astype(np.float64),
                observed.before[name].astype(np.float64),
                self.settings,
                -(-observed.images // self.settings.batch_size),
            )
            scores = {
                attack: in_row_space(gradient, observed.images, embeddings)
                for attack, gradient in found.items()
            }
            estimates = leading_rows(found["inverted, clipped"], observed.images)
        chosen, _ = nearest(estimates, embeddings)
        _, cosines = nearest(estimates, embeddings[is_member])
        return Found(
            {attack: area_under_curve(values, is_member) for attack, values in scores.items()},
            float(is_member[chosen].mean()),
            float(cosines.max()),
        )

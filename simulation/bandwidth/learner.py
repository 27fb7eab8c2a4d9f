"""What a virtual site does when its agent asks it to train, and the measurements taken on the way."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from fedmedclip.edge_client.heads.heads import initial_private_head, private_head_specification
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.codecs import Codec, codec_named, decode_head, encode_head, order0_entropy_bytes
from fedmedclip.protocol.codecs.error_feedback import Compressed, difference
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

_TIMED_REPEATS = 3


@dataclass
class CodecMeasurements:
    """What encoding real updates takes: milliseconds, and bytes of the payload and of its order-0 entropy."""

    encode_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    entropy_bytes: list[float] = field(default_factory=list)
    payload_bytes: list[int] = field(default_factory=list)

    def take(
        self, codec: Codec, arrays: NamedArrays, memory: bytes, specification: HeadSpecification
    ) -> None:
        """Encode and decode the arrays a few times and record the medians. Nothing else changes."""
        encode_ms, decode_ms = [], []
        for _ in range(_TIMED_REPEATS):
            started = time.process_time()
            encoded = encode_head(codec, arrays, specification, memory)
            between = time.process_time()
            decode_head(encoded.data, specification)
            decode_ms.append(1000 * (time.process_time() - between))
            encode_ms.append(1000 * (between - started))
        self.encode_ms.append(median(encode_ms))
        self.decode_ms.append(median(decode_ms))
        self.payload_bytes.append(len(encoded.data))
        self.entropy_bytes.append(order0_entropy_bytes(encoded.data, specification))


class VirtualLearner:
    """The `Learner` of a virtual site: production training on the site's part of the pool.

    `measurements()` says where to record what the codec makes of this round's update; None: not this time.
    """

    def __init__(
        self,
        site: VirtualSite,
        pool: FeaturePool,
        settings: TrainingSettings,
        state: SiteState,
        measurements: Callable[[], CodecMeasurements | None],
    ) -> None:
        self._site = site
        self._pool = pool
        self._settings = settings
        self._state = state
        self._measurements = measurements
        self.samples = len(site.train)

    def private_specification(self, plan: Plan) -> HeadSpecification:
        """Return the private head's specification; an empty one for a method without private head."""
        return private_specification(plan.method, self._pool)

    def initial_private_head(self, plan: Plan) -> NamedArrays:
        """Return the private head before the first round."""
        classes = len(self._pool.class_embeddings)
        return initial_private_head(
            plan.method, self._pool.embedding_size, classes, plan.seed, self._site.name
        )

    def train(
        self, plan: Plan, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return both heads after one local round."""
        trained = train(
            self._site, self._pool, self._settings, plan.method, plan.seed, shared, private, round_number
        )
        if (measurements := self._measurements()) is not None:
            specification = shared_head_specification(
                plan.method, plan.embedding_size, len(self._pool.class_embeddings)
            )
            wanted = difference(trained[0], shared)
            stored = self._state.load()
            assert stored is not None
            if stored.residual is not None:
                residual = specification.from_bytes(stored.residual)
                wanted = {name: wanted[name] + residual[name] for name in wanted}
            measurements.take(codec_named(plan.uplink_codec), wanted, stored.codec_memory, specification)
        return trained

    def compressed(self, round_number: int, compressed: Compressed) -> None:
        """Do nothing: the benchmark reports accuracies."""

    def installed(
        self, plan: Plan, version: int, shared: NamedArrays, private: NamedArrays, finished: bool
    ) -> None:
        """Do nothing: the benchmark evaluates the global head once, not at every site."""


def private_specification(method: str, pool: FeaturePool) -> HeadSpecification:
    """Return a method's private head for this pool; an empty specification when it has none."""
    classes = len(pool.class_embeddings)
    return private_head_specification(method, pool.embedding_size, classes) or HeadSpecification(())


def train(
    site: VirtualSite,
    pool: FeaturePool,
    settings: TrainingSettings,
    method: str,
    seed: int,
    shared: NamedArrays,
    private: NamedArrays,
    round_number: int,
) -> tuple[NamedArrays, NamedArrays]:
    """Train one round at a site, drawing exactly what a real site of that name would draw."""
    trained = train_round(
        method,
        shared,
        private,
        pool.embeddings[site.train],
        pool.labels[site.train],
        pool.class_embeddings,
        pool.logit_scale,
        settings,
        round_number=round_number,
        seed=derive_seed(seed, site=site.name, round_number=round_number, purpose="training"),
    )
    return trained.shared, trained.private

"""A round's stored updates and its rule: what each site weighs, and what is kept for the next round."""

import logging
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import msgspec
import numpy as np

from fedmedclip.aggregator.rules.names import NamedRule
from fedmedclip.aggregator.rules.rule import Aggregated, Remark, RuleState, SiteUpdate, in_memory
from fedmedclip.aggregator.rules.weighted_mean import mean_of
from fedmedclip.aggregator.staleness import staleness_weight
from fedmedclip.aggregator.store import Store, StoredAggregation
from fedmedclip.aggregator.weights import MostSamples, Weighting, anything, weights_of
from fedmedclip.protocol.codecs import decode_head
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

log = logging.getLogger("fedmedclip.aggregator")

_DTYPES = ("<f4", "<f8")


@dataclass(frozen=True)
class Weighing:
    """How sites are weighed: see `weights_of`."""

    weighting: Weighting = "samples"
    maximum_share: float = 0.5
    most_samples: MostSamples = anything


def aggregate_stored(
    store: Store, rule: NamedRule, specification: HeadSpecification, round_number: int, weighing: Weighing
) -> tuple[NamedArrays, StoredAggregation]:
    """Return the delta of the updates that are stored, and what to store of the rule with the new version.

    A site counts once, however many late updates it has there: their mean, weighted alike, counts for the sum
    of their samples. Raises AggregationError as the rule does.
    """
    rounds = {
        site: {number: samples for _, number, samples in rows}
        for site, rows in groupby(store.samples(), key=lambda row: row[0])
    }
    samples = {site: sum(of_rounds.values()) for site, of_rounds in rounds.items()}
    weights = weights_of(samples, weighing.weighting, weighing.maximum_share, weighing.most_samples)
    updates = [
        SiteUpdate(
            site,
            weights[site],
            partial(_delta_of, store, specification, site, of_rounds, round_number, weighing.weighting),
        )
        for site, of_rounds in rounds.items()
    ]
    found = rule(updates, specification, _kept_state(store, rule.name))
    _tell(round_number, rule.name, found)
    stored = StoredAggregation(
        rule.name, round_number, encode_state(found.state), msgspec.json.encode(found.remarks)
    )
    return found.delta, stored


def newest_remarks(store: Store) -> tuple[int, tuple[Remark, ...]]:
    """Return which round made the newest version, and what its rule remarked; (0, ()) where none did."""
    found = store.aggregation()
    if found is None:
        return 0, ()
    return found.round_number, msgspec.json.decode(found.remarks, type=tuple[Remark, ...])


def encode_state(state: RuleState) -> bytes:
    """Return a rule's state as MessagePack: name, dtype, shape and little-endian bytes of each array."""
    return msgspec.msgpack.encode(
        [
            (name, dtype := f"<f{array.dtype.itemsize}", array.shape, array.astype(dtype).tobytes())
            for name, array in sorted(state.items())
        ]
    )


def decode_state(encoded: bytes) -> RuleState:
    """Return what `encode_state` was given."""
    rows = msgspec.msgpack.decode(encoded, type=list[tuple[str, str, tuple[int, ...], bytes]])
    return {
        name: np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype[1:])
        for name, dtype, shape, data in rows
    }


def _kept_state(store: Store, rule: str) -> RuleState:
    found = store.aggregation()
    if found is None:
        return {}
    if found.rule != rule:
        log.info("aggregation rule %s begins anew; %s made the version before", rule, found.rule)
        return {}
    return decode_state(found.state)


def _delta_of(
    store: Store,
    specification: HeadSpecification,
    site: str,
    rounds: dict[int, int],
    round_number: int,
    weighting: Weighting,
) -> NamedArrays:
    deltas = [
        (
            float(samples) if weighting == "samples" else 1.0,
            _discounted(store.update(site, number).payload, specification, round_number - number),
        )
        for number, samples in rounds.items()
    ]
    if len(deltas) == 1:
        return deltas[0][1]
    return mean_of([in_memory(site, weight, delta) for weight, delta in deltas], specification)


def _discounted(payload: bytes, specification: HeadSpecification, rounds_late: int) -> NamedArrays:
    delta = decode_head(payload, specification)
    if rounds_late == 0:
        return delta
    scale = np.float32(staleness_weight(rounds_late))
    return {name: array * scale for name, array in delta.items()}


def _tell(round_number: int, rule: str, found: Aggregated) -> None:
    if found.remarks:
        said = "; ".join(f"{remark.site} {remark.fate}: {remark.reason}" for remark in found.remarks)
        log.info("round %d, rule %s: %s", round_number, rule, said)

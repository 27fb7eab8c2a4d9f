"""Our own rows: heads over the frozen encoder, by the simulation's engine, on the same splits."""

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.whole_encoder.federation import Round, SiteTime, as_bytes, settings_digest
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT, Examiner
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.simulate import simulate
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


def check_head_method(name: str, others: Sequence[str]) -> None:
    """Raise InvalidInputError for a method that is not zero-shot or one of ours, or adapts to a reference."""
    if name != ZERO_SHOT and name not in known_methods():
        raise InvalidInputError(unknown_name("method", name, [*others, ZERO_SHOT, *known_methods()]))
    if name != ZERO_SHOT and site_method(name).adapts:
        raise InvalidInputError(f"method {name} adapts to a reference set, which these tables do not have")


def head_settings(rounds: int, floors: bool) -> str:
    """Return the digest of what heads are trained with: the methods' defaults, the rounds, the floors."""
    return settings_digest("defaults", rounds, floors)


def play_heads(
    method: str, pool: FeaturePool, sites: Sequence[VirtualSite], seed: int, rounds: int, floors: bool
) -> Round:
    """Return the last round of a federation: bytes and seconds are its means over rounds and sites.

    The seconds are of the whole simulation, so with codecs, messages and evaluation; features are there. At
    the sites the ensemble answers, on the global test the shared head.
    """
    wall, processor = time.perf_counter(), time.process_time()
    empty: NamedArrays = {}
    shared, private = empty, {site.name: empty for site in sites}
    sent = received = 0
    if method != ZERO_SHOT:
        result = simulate(pool, method=method, rounds=rounds, seed=seed, floors=floors)
        shared, private = result.heads[seed].shared, result.heads[seed].private
        turns = rounds * len(sites)
        sent = round(sum(row.uplink_bytes for row in result.rounds) / turns)
        received = round(sum(row.downlink_bytes for row in result.rounds) / turns)
    each = SiteTime(
        *(
            round((now - then) / (rounds * len(sites)), 4)
            for now, then in ((time.perf_counter(), wall), (time.process_time(), processor))
        )
    )
    examiner = Examiner(pool, method)
    predictions = {}
    for site in sites:
        found = examiner.predict(shared, private.get(site.name, empty), pool.embeddings[site.test])
        predictions[site.name] = as_bytes(np.asarray(found.ensemble.argmax(axis=1)))
    if pool.global_test is not None:
        found = examiner.predict(shared, empty, pool.global_test.embeddings)
        predictions[GLOBAL_TEST] = as_bytes(np.asarray(found.shared.argmax(axis=1)))
    times = {site.name: each for site in sites} if method != ZERO_SHOT else {}
    return Round(method, head_settings(rounds, floors), seed, rounds, sent, received, {}, times, predictions)

"""Rounds of a learner over sites, each kept when it is finished, so that a killed run goes on from there."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
import zstandard

from benchmarks.whole_encoder.learner import Arrays, Kept, Learner, Predicted, Turn, mean_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import new_file
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

VALIDATION = "validation"


class SiteTime(msgspec.Struct, frozen=True):
    """What a round's training took at a site, in seconds by the clock and of the processor."""

    wall: float
    processor: float


class Round(msgspec.Struct, frozen=True):
    """A finished round: what travelled, how long it took, and what the shared model then says.

    `uplink_bytes` and `downlink_bytes` are of one site, as the method's paper sends it. `smaller` has what
    one site's update would be in other forms, by name. `predictions` are a byte per image, its class: of each
    site's test images, of its validation images (`SITE/validation`), and of the global test.
    """

    method: str
    settings: str
    seed: int
    number: int
    uplink_bytes: int
    downlink_bytes: int
    smaller: dict[str, int]
    times: dict[str, SiteTime]
    predictions: dict[str, bytes]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells rounds apart."""
        return self.method, self.settings, self.seed, self.number


def settings_digest(*settings: object) -> str:
    """Return a short name of everything that a method's numbers depend on beside data and seed."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def play(
    learner: Learner,
    method: str,
    settings: str,
    sites: Sequence[VirtualSite],
    with_global_test: bool,
    seed: int,
    rounds: int,
    state: Path,
    add: Callable[[Round], None],
) -> None:
    """Play the rounds that the file `state` has not seen, up to `rounds`, and `add` each when it is finished.

    All sites take part in each round, and weigh as many images as they train on (McMahan et al. 2017). A
    round is added before `state` holds what comes of it: killed between, the same round is played and added
    again.
    """
    shared, kept, done = _resume(state, settings) or (learner.initial(seed), {}, 0)
    weights = [len(site.train) / sum(len(one.train) for one in sites) for site in sites]
    for number in range(done + 1, rounds + 1):
        made, times = [], {}
        for site in sites:
            wall, processor = time.perf_counter(), time.process_time()
            turn_seed = derive_seed(seed, site=site.name, round_number=number, purpose="batches")
            arrays, kept[site.name] = learner.train(
                shared, kept.get(site.name, Kept()), Turn(site.train, number, turn_seed)
            )
            times[site.name] = SiteTime(
                round(time.perf_counter() - wall, 3), round(time.process_time() - processor, 3)
            )
            made.append(arrays)
        smaller = smaller_forms(made[0], shared)
        shared = mean_of(made, weights)
        size = float32_bytes(shared)
        predictions = predict_all(learner, shared, sites, with_global_test)
        add(Round(method, settings, seed, number, size, size, smaller, times, predictions))
        _keep(state, settings, shared, kept, number)


def predict_all(
    learner: Learner, shared: Arrays, sites: Sequence[VirtualSite], with_global_test: bool
) -> dict[str, bytes]:
    """Return what the shared model says of all images that nobody trains on, as in `Round.predictions`."""
    found: dict[str, bytes] = {}
    for site in sites:
        found[site.name] = as_bytes(learner.predict(shared, site.test))
        found[f"{site.name}/{VALIDATION}"] = as_bytes(learner.predict(shared, site.validation))
    if with_global_test:
        found[GLOBAL_TEST] = as_bytes(learner.predict(shared, None))
    return found


def as_bytes(classes: Predicted) -> bytes:
    """Return a byte for each image. Raises InvalidInputError for a class above 255."""
    if len(classes) and classes.max() > 255:
        raise InvalidInputError(f"{classes.max() + 1} classes are too many here; give data of at most 256")
    return classes.astype(np.uint8).tobytes()


def float32_bytes(arrays: Arrays) -> int:
    """Return how many bytes the arrays are as the papers send them: each value a float32, nothing else."""
    return sum(4 * array.numel() for array in arrays.values())


def smaller_forms(made: Arrays, shared: Arrays) -> dict[str, int]:
    """Return the bytes of a site's update as a difference in float16, and of that after zstd (level 3)."""
    halves = [(made[name] - shared[name]).half().cpu().numpy().tobytes() for name in made]
    compressed = zstandard.ZstdCompressor(level=3).compress(b"".join(halves))
    return {"float16": sum(map(len, halves)), "float16+zstd": len(compressed)}


def _keep(state: Path, settings: str, shared: Arrays, kept: Mapping[str, Kept], number: int) -> None:
    at_sites = {name: {"optimiser": one.optimiser, "previous": one.previous} for name, one in kept.items()}
    with new_file(state) as file:
        torch.save({"settings": settings, "round": number, "shared": shared, "kept": at_sites}, file)


def _resume(state: Path, settings: str) -> tuple[Arrays, dict[str, Kept], int] | None:
    if not state.exists():
        return None
    try:
        found = torch.load(state, weights_only=True)
        kept = {name: Kept(**one) for name, one in found["kept"].items()}
        if found["settings"] != settings:
            return None
        return found["shared"], kept, int(found["round"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError) as error:
        raise InvalidInputError(
            f"{state} is damaged ({error}); delete it to play its rounds again"
        ) from error

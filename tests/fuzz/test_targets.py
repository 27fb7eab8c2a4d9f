"""Everything that reads bytes of others, on some hundred hostile ones each: the same in each run."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.registry import TARGETS
from benchmarks.fuzz.target import Target
from benchmarks.fuzz.watch import Watch

# Ten times what is demanded: this is no place to measure.
SECONDS = 1.0
EXAMPLES_OF_WEIGHT_1 = 100
FEWEST, MOST = 40, 400
TRACED_EVERY = 16
REGRESSIONS = Path(__file__).parent / "regressions"


def hostile_inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Bytes of any kind, and valid inputs that were changed up to five times."""
    seeds = target.seeds()

    def changed(number: int, times: int, chance: int) -> bytes:
        data, draw = seeds[number], Random(chance)
        for _ in range(times):
            data = target.mutate(data, draw.choice(seeds), draw)
        return data

    mutants = st.builds(changed, st.integers(0, len(seeds) - 1), st.integers(1, 5), st.integers(0, 1 << 62))
    return mutants | mutants | mutants | st.binary(max_size=200)


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_are_taken_or_refused_in_one_line_in_little_time_and_memory(
    name: str, tmp_path: Path
) -> None:
    target = TARGETS[name]
    watch = Watch(target, target.prepare(tmp_path), SECONDS)
    examples = max(FEWEST, min(MOST, int(EXAMPLES_OF_WEIGHT_1 * target.weight)))

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_inputs(target), st.integers(1, TRACED_EVERY))
    def look(data: bytes, turn: int) -> None:
        found = watch.look(data, traced=turn == TRACED_EVERY)
        assert found is None, f"{found.kind}: {found.details}"

    look()


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_input_is_taken(name: str, tmp_path: Path) -> None:
    """Else a target that refuses everything would look like one that bears everything."""
    target = TARGETS[name]
    take, taken = target.prepare(tmp_path), 0
    for seed in target.seeds()[:40]:
        try:
            take(seed)
        except target.promised:
            continue
        taken += 1
    assert taken > 0


@pytest.mark.parametrize(
    "path", sorted(REGRESSIONS.glob("*/*.bin")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_was_found_once_is_borne(path: Path, tmp_path: Path) -> None:
    target = TARGETS[path.parent.name]
    watch, data = Watch(target, target.prepare(tmp_path), SECONDS), path.read_bytes()
    assert watch.look(data) is None
    assert watch.look(data, traced=True) is None

"""What the benchmarks of resources call flat and quick enough."""

import pytest

from benchmarks.liveness.scale import goal_seconds
from benchmarks.liveness.soak import DESCRIPTORS_MORE, Measured, judge, soak


def measured(*, megabytes=0.0, descriptors=0.0, disk=0.0, rounds=1000):
    """What would be found when so much came with each round, beside a sawtooth of the disk."""
    return Measured(
        [60.0 + megabytes * number for number in range(rounds)],
        [10.0 + int(descriptors * number) for number in range(rounds)],
        [8.0 + (number % 10) / 10 + disk * number for number in range(rounds)],
    )


def test_what_stays_where_it_was_is_flat():
    assert judge(measured()) == {
        "own_memory_mb": (60.0, 60.0), "descriptors": (10.0, 10.0), "disk_mb": (8.81, 8.81), "flat": True,
    }  # fmt: skip


@pytest.mark.parametrize("growth", [{"megabytes": 0.004}, {"descriptors": 0.01}, {"disk": 0.002}])
def test_a_little_more_in_each_round_is_not_flat(growth):
    assert not judge(measured(**growth))["flat"]


def test_memory_that_is_taken_while_it_warms_up_does_not_count():
    found = measured()
    found.own_megabytes[:150] = [40.0] * 150
    assert judge(found)["flat"]


def test_many_sites_have_more_time():
    assert [goal_seconds(sites) for sites in (50, 1000, 10_000, 20_000)] == [5.0, 5.0, 60.0, 120.0]


@pytest.mark.slow
def test_a_short_soak_of_real_processes(tmp_path, mosquitto_installed):
    found = Measured()
    soak(5, 30, tmp_path, found)
    assert len(found.descriptors) == 30
    early, late = judge(found)["descriptors"]
    assert 5 < late <= early + DESCRIPTORS_MORE

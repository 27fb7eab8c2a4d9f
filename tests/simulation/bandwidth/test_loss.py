"""The loss of a codec, and its interval over the seeds."""

import pytest

from fedmedclip.simulation.bandwidth.loss import (
    difference_to_uncompressed,
    global_difference_to_uncompressed,
)
from fedmedclip.simulation.bandwidth.runs import Round, Run


def run(codec, seed, accuracy, accuracy_global=None):
    rounds = [Round(2, 10, 10, 2, accuracy, accuracy_global)] * 6
    return Run(codec, seed, rounds, 2, {}, {}, 1.0, 1.0, 1.0, 1.0, "")


def test_the_interval_is_students_over_the_differences_of_seeds():
    found = difference_to_uncompressed(
        {
            "lossless": [run("lossless", seed, 0.5 + 0.1 * seed) for seed in range(3)],
            "sign": [run("sign", seed, 0.47 + 0.11 * seed) for seed in range(3)],
        }
    )["sign"]  # fmt: skip
    assert (found.mean, found.std) == pytest.approx((-0.02, 0.01))
    # Tables of Student's t: 4.303 for 2 degrees of freedom; 4.303 * 0.01 / sqrt(3) = 0.0248.
    assert (found.low, found.high) == pytest.approx((-0.0448, 0.0048), abs=1e-4)
    assert found.in_points() == "-2.00 ± 2.48"


def test_one_seed_gives_no_interval_and_no_reference_no_difference():
    one = difference_to_uncompressed({"lossless": [run("lossless", 0, 0.5)], "int8": [run("int8", 0, 0.49)]})[
        "int8"
    ]
    assert (one.low, one.high) == (None, None)
    assert one.in_points() == "-1.00"
    assert difference_to_uncompressed({"int8": [run("int8", 0, 0.49)]}) == {}


def test_the_global_test_has_a_difference_of_its_own():
    runs = {
        "lossless": [run("lossless", 0, 0.5, 0.4), run("lossless", 1, 0.5, 0.5)],
        "int8": [run("int8", 0, 0.6, 0.38), run("int8", 1, 0.6, 0.48)],
    }
    found = global_difference_to_uncompressed(runs)["int8"]
    assert (found.mean, found.low, found.high) == pytest.approx((-0.02, -0.02, -0.02))
    assert difference_to_uncompressed(runs)["int8"].mean == pytest.approx(0.1)


def test_without_a_global_test_there_is_no_difference_on_it():
    runs = {"lossless": [run("lossless", 0, 0.5)], "int8": [run("int8", 0, 0.49)]}
    assert global_difference_to_uncompressed(runs) == {}

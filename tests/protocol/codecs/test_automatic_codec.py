"""`auto`: no message exceeds its budget, and what it is spent on follows from it."""

import logging

import numpy as np
import pytest

from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, OVERHEAD_BYTES, seal
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import Announcement, Update
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.participation import LOTS
from fedmedclip.protocol.signature import new_signing_key
from tests.protocol.codecs.codec_examples import FAM, encoded, noise, round_trip, squared_error, structured


@pytest.mark.parametrize("size", [24, 96, 256])
@pytest.mark.parametrize("budget", [256, 400, 1000, 1460, 2920, 20_000])
def test_no_message_exceeds_the_budget(size, budget):
    specification = shared_head_specification("fedmedclip", size)
    codec, key, memory = codec_named(f"auto:bytes={budget}"), new_signing_key(), b""
    for seed in range(3):
        for delta in (noise(specification, seed, 10.0**-seed), structured(specification, seed)):
            result = encode_head(codec, delta, specification, memory)
            memory = result.memory
            reference = refer_to(result.data, 131_072)
            update = seal(Update(10**6, 10**9, reference, 0), "fmc1/federation/up/site", key, NO_IDENTITY)
            broadcast = Announcement(10**6, bytes(32), False, reference, LOTS - 1)
            assert len(update) <= budget
            assert len(seal(broadcast, "fmc1/federation/head", key, NO_IDENTITY)) <= budget
            assert len(update) - len(result.data) <= OVERHEAD_BYTES


def test_a_larger_budget_is_used():
    delta = noise(FAM, 13)
    sizes = [len(encoded(f"auto:bytes={budget}", delta, FAM).data) for budget in (500, 900, 1500, 3000)]
    assert all(
        size > 0.6 * (budget - OVERHEAD_BYTES)
        for size, budget in zip(sizes, (500, 900, 1500, 3000), strict=True)
    )


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [(1500, "rank 30, 1.9 bits"), (2000, "value in 3 bits"), (3000, "in 4 bits"), (20_000, "in 8 bits")],
)
def test_bits_follow_from_the_budget_as_the_log_says(budget, chosen, caplog):
    with caplog.at_level(logging.INFO, "fedmedclip.codec"):
        encoded(f"auto:bytes={budget}", noise(FAM, 13), FAM)
    assert chosen in caplog.text


def test_more_budget_leaves_out_less():
    delta = structured(FAM, 16, noise_share=0.5)
    names = [f"auto:bytes={budget}" for budget in (500, 1000, 1500, 2000, 3000, 6000)]
    errors = [squared_error(delta, round_trip(name, delta, FAM)) for name in names]
    assert errors == sorted(errors, reverse=True)


def test_less_is_spent_when_the_head_settles(caplog):
    delta, memory, sizes = noise(FAM, 14, 0.01), b"", []
    with caplog.at_level(logging.INFO, "fedmedclip.codec"):
        for shrink in (1.0, 1.0, 0.5, 0.25):
            smaller = {name: np.float32(shrink) * array for name, array in delta.items()}
            result = encoded("auto:bytes=1460", smaller, FAM, memory)
            memory = result.memory
            sizes.append(len(result.data))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert sizes[0] > 1.5 * sizes[2] > 1.5 * sizes[3]
    assert "auto:bytes=1460: rank" in caplog.messages[0]


def test_a_rate_and_a_time_state_a_budget_too():
    delta = noise(FAM, 15)
    assert encoded("auto:kbits=8,seconds=1.5", delta, FAM).data == encoded("auto:bytes=1500", delta, FAM).data


def test_a_budget_that_holds_nothing_says_so(caplog):
    specification = shared_head_specification("fedmedclip", 512)
    data = encoded("auto:bytes=256", noise(specification), specification).data
    assert not any(array.any() for array in decode_head(data, specification).values())
    assert "state a larger budget" in caplog.text

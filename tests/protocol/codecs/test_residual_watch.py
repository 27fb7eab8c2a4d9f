"""What is left to later rounds is in the log, with a warning only where it piles up."""

import logging

import pytest

from fedmedclip.protocol.codecs import codec_named
from fedmedclip.protocol.codecs.error_feedback import compress
from fedmedclip.protocol.codecs.residual_watch import ResidualWatch
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from tests.protocol.codecs.codec_examples import noise


def watched(name, size, rounds):
    specification = shared_head_specification("fedmedclip", size)
    watch, shares, residual, memory = ResidualWatch("update"), [], None, b""
    for number in range(1, rounds + 1):
        compressed = compress(
            codec_named(name), noise(specification, number), residual, memory, specification
        )
        residual, memory = compressed.residual, compressed.memory
        watch.note(number, compressed)
        shares.append(watch.shares)
    return shares


@pytest.mark.parametrize(
    ("name", "size", "low", "high"),
    [("lossless", 32, 0.0, 0.0), ("int8", 32, 0.001, 0.02), ("lowrank", 256, 0.8, 0.99)],
)
def test_a_codec_that_keeps_up_is_reported_without_a_warning(name, size, low, high, caplog):
    with caplog.at_level(logging.INFO, "fedmedclip.codec"):
        shares = watched(name, size, 20)
    # Only the newest is kept.
    assert [list(kept) for kept in shares] == [[number] for number in range(1, 21)]
    assert all(low <= share <= high for kept in shares for share in kept.values())
    assert "round 20: the update leaves" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_a_residual_that_piles_up_is_warned_of_every_few_rounds(caplog):
    watched("lowrank:rank=1", 96, 40)
    warnings = [record.getMessage() for record in caplog.records]
    assert 2 <= len(warnings) <= 8
    assert "times a round's change; choose a codec that sends more" in warnings[0]

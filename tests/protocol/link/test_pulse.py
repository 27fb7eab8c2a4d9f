"""When a silent link is tested, and when it is given up: a black hole within 40 s, a slow link never."""

import pytest

from fedmedclip.protocol.link.pulse import Pulse
from fedmedclip.protocol.link.settings import LinkSettings

KEEPALIVE = LinkSettings().keepalive_seconds


def seconds_until_lost(sending_bytes: int, sent_every: float | None = None) -> float:
    """Let time pass in steps of a second, as the link does, with nothing from the broker."""
    pulse = Pulse(KEEPALIVE, 0.0)
    for second in range(1000):
        now = float(second)
        if pulse.ping_due(now):
            pulse.asked(now)
        if pulse.lost(now, sending_bytes):
            return now
        if sent_every and second % sent_every == 0:
            pulse.sent(now)
    raise AssertionError("never lost")


@pytest.mark.parametrize("sent_every", [None, 5.0])
def test_a_black_hole_is_noticed_within_40_seconds_also_under_an_usual_update(
    sent_every: float | None,
) -> None:
    assert KEEPALIVE < seconds_until_lost(3000, sent_every) <= 40.0


def test_a_block_has_its_time_at_9600_bits_per_second() -> None:
    assert seconds_until_lost(131_072) > 131_072 * 8 / 9600 + 10


def test_part_of_a_message_answers_as_a_whole_one_does() -> None:
    pulse = Pulse(KEEPALIVE, 0.0)
    pulse.asked(25.0)
    pulse.heard(34.0)
    assert not pulse.lost(36.0, 0)
    assert not pulse.ping_due(36.0)


def test_a_client_that_only_listens_still_tells_the_broker_that_it_is_there() -> None:
    pulse = Pulse(KEEPALIVE, 0.0)
    for second in range(KEEPALIVE):
        pulse.heard(float(second))
        assert not pulse.ping_due(float(second))
    assert pulse.ping_due(float(KEEPALIVE))

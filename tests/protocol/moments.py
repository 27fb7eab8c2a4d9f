"""Moments for messages that a test makes itself."""

import itertools

from fedmedclip.protocol.messages import Moment

_COUNT = itertools.count(1)


def a_moment() -> Moment:
    """A moment that is later than all those before."""
    return Moment(1_800_000_000, 0, next(_COUNT))

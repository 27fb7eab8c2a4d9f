"""What of a status somebody should look at, in sentences: what `fedmedclip status` ends with code 1 for."""

import time
from collections.abc import Iterator

import msgspec

from fedmedclip.aggregator.federation_status import FederationStatus
from fedmedclip.protocol.plan_words import MORE_ROUNDS
from fedmedclip.protocol.progress import duration

LATE_SHARE = 0.5
"""A site is late when the round has waited for it for this share of its time limit."""
SOON_DAYS = 14
"""Certificates that end within so many days are named."""
_DAY = 86_400.0
_REFUSED = "its update was refused"
_ABSTAINED = "it abstained: "


def needing_attention(status: FederationStatus) -> FederationStatus:
    """Return a status with what somebody should look at, as of now."""
    return msgspec.structs.replace(status, attention=list(_sentences(status, time.time())))


def _sentences(status: FederationStatus, clock: float) -> Iterator[str]:
    if not status.finished:
        yield from _of_the_run(status)
    for member in status.members:
        if member.part == "unable":
            yield f"{member.site} cannot take part: {member.reason}"
    for certificate in status.certificates:
        days = (certificate.ends - clock) / _DAY
        if days < SOON_DAYS:
            when = "has ended" if days < 0 else f"ends in {duration(certificate.ends - clock)}"
            yield f"the certificate of {certificate.whose} {when}"
    for flood in status.floods:
        yield f"too many {flood.kind} of {flood.site or 'strangers'}: {flood.dropped} dropped"
    yield from status.warnings


def _of_the_run(status: FederationStatus) -> Iterator[str]:
    """Yield what keeps a run from going on, and for whom it does not."""
    if status.source == "state":
        yield "the aggregator does not run: fedmedclip aggregator starts it"
    if status.paused:
        yield "the run is paused: nothing goes on until fedmedclip control resume"
        return
    waited, limit = status.round_seconds, status.deadline_seconds
    if waited is not None and limit is not None and waited >= limit and status.delivered < status.needed:
        yield (
            f"round {status.version + 1} is overdue: {status.delivered} of at least {status.needed} updates "
            f"after {duration(waited)}"
        )
    for member in status.members:
        if member.late_seconds is not None:
            yield f"{member.site} is late: the round waits for it for {duration(member.late_seconds)}"
        elif member.part == "away":
            since = "" if member.seconds is None else f" for {duration(member.seconds)}"
            yield f"{member.site} is away{since}"
        elif member.part == "excused" and member.reason.startswith((_REFUSED, _ABSTAINED + MORE_ROUNDS)):
            yield f"{member.site}: {member.reason}"

"""A roster at the broker that is longer than ours: of the records that a restored backup lacks."""

import logging

from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.messages import RosterNotice
from fedmedclip.protocol.roster.chain import Roster, open_roster

log = logging.getLogger("fedmedclip.aggregator")

_TAKE = "take a hospital's copy: fedmedclip federation roster FILE --adopt"


def longer_roster(topic: str, payload: bytes, ours: Roster) -> Roster | None:
    """Return the roster in a notice when it continues ours with more records; None for anything else.

    Raises InvalidInputError when the coordinator signed a longer one that the notice does not hold, being too
    large for it, or that does not continue ours.
    """
    try:
        envelope = open_envelope(payload, topic)
    except MessageError:
        return None
    notice = envelope.message
    if not isinstance(notice, RosterNotice) or notice.records <= len(ours.records):
        return None
    try:
        theirs = open_roster(notice.payload) if isinstance(notice.payload, bytes) else None
        keys = ours.coordinator_keys if theirs is None else theirs.coordinator_keys
        envelope.verify(keys[-1], NO_IDENTITY)
    except MessageError as error:
        log.warning("a roster is retained at the broker that the coordinator did not make: %s", error)
        return None
    lacking = f"the broker retains a roster of {notice.records} records, {len(ours.records)} are here"
    if theirs is None:
        raise InvalidInputError(f"{lacking}, and it is too large to come with its notice; {_TAKE}")
    if ours.coordinator_key not in theirs.coordinator_keys:
        return None
    if not theirs.continues(ours):
        raise InvalidInputError(
            f"{lacking}, and it is another history, with the coordinator's signature: a backup was restored, "
            f"and changed since; {_TAKE}"
        )
    return theirs

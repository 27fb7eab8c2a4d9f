"""What a site holds of a run, with the aggregator's own signatures: an aggregator that lost its state (a
restored backup) gets the newest version back from it.

One MessagePack array: the payload of the newest Plan as it came, the topic and the payload of the
Announcement or Snapshot of the site's version as they came, and that version's head as bytes (its
specification's `to_bytes`). Where a site has no carrier, the last three are empty: it proves its Plan alone.
The aggregator believes its own signatures and the digest in the carrier, not the
site.
"""

from collections.abc import Sequence

import msgspec

from fedmedclip.protocol.envelope import Envelope, open_envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.messages import Announcement, Message, Plan, Snapshot
from fedmedclip.protocol.topics import plan as plan_topic


class Evidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a site sends of its state; see the module."""

    plan: bytes
    topic: str
    carrier: bytes
    head: bytes


def encode_evidence(evidence: Evidence) -> bytes:
    """Return the MessagePack bytes."""
    return msgspec.msgpack.encode(evidence)


def decode_evidence(data: bytes) -> Evidence:
    """Return what `data` holds; raises MessageError when that is no evidence."""
    try:
        return msgspec.msgpack.decode(data, type=Evidence)
    except MALFORMED as error:
        raise MessageError(f"a site's state is malformed: {error}") from error


def proven_plan(evidence: Evidence, federation: str, keys: Sequence[bytes]) -> Plan:
    """Return the plan in the evidence, which one of the aggregator's `keys` signed: of today, or former ones.

    Raises MessageError when none did.
    """
    topic = plan_topic(federation)
    envelope = open_envelope(evidence.plan, topic)
    if not isinstance(envelope.message, Plan) or envelope.message.aggregator_key not in keys:
        raise MessageError("a site's state holds the plan of another aggregator")
    envelope.verify(envelope.message.aggregator_key, envelope.message.identity)
    return envelope.message


def proven_head(
    evidence: Evidence, plan: Plan, specification: HeadSpecification, keys: Sequence[bytes]
) -> tuple[int, NamedArrays]:
    """Return version and head in the evidence, once one of the aggregator's `keys` signed that they are of
    the run of `plan`.

    Raises MessageError or HeadError when they are not.
    """
    carrier = _verified(open_envelope(evidence.carrier, evidence.topic), keys, plan.identity)
    if not isinstance(carrier, Announcement | Snapshot):
        raise MessageError(f"a site's state proves nothing with {type(carrier).__name__}")
    head = specification.from_bytes(evidence.head)
    if head_digest(head) != carrier.head_digest:
        raise MessageError(f"a site's head is not the one that was announced as version {carrier.version}")
    specification.check(head)
    return carrier.version, head


def _verified(envelope: Envelope, keys: Sequence[bytes], identity: bytes) -> Message:
    *former, newest = keys
    for key in former:
        try:
            return envelope.verify(key, identity)
        except MessageError:
            continue
    return envelope.verify(newest, identity)

"""What a site holds of a run, with the aggregator's own signatures: an aggregator that lost its state (a
restored backup) gets the newest version back from it.

One MessagePack array: the payload of the newest Plan as it came, the topic and the payload of the
Announcement or Snapshot of the site's version as they came, and that version's head as bytes (its
specification's `to_bytes`). The aggregator believes its own signatures and the digest in the carrier, not the
site.
"""

import msgspec

from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.messages import Announcement, Plan, Snapshot
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


def proven_plan(evidence: Evidence, federation: str, key: bytes) -> Plan:
    """Return the plan in the evidence, which `key` signed. Raises MessageError when it did not."""
    topic = plan_topic(federation)
    envelope = open_envelope(evidence.plan, topic)
    if not isinstance(envelope.message, Plan) or envelope.message.aggregator_key != key:
        raise MessageError("a site's state holds the plan of another aggregator")
    envelope.verify(key, envelope.message.identity)
    return envelope.message


def proven_head(evidence: Evidence, plan: Plan, specification: HeadSpecification) -> tuple[int, NamedArrays]:
    """Return version and head in the evidence, once the aggregator of `plan` has signed that they are so.

    Raises MessageError or HeadError when they are not.
    """
    carrier = open_envelope(evidence.carrier, evidence.topic).verify(plan.aggregator_key, plan.identity)
    if not isinstance(carrier, Announcement | Snapshot):
        raise MessageError(f"a site's state proves nothing with {type(carrier).__name__}")
    head = specification.from_bytes(evidence.head)
    if head_digest(head) != carrier.head_digest:
        raise MessageError(f"a site's head is not the one that was announced as version {carrier.version}")
    specification.check(head)
    return carrier.version, head

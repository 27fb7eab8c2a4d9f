"""The frame around every message: magic, version, message, signature.

    2 bytes   b"FM"
    1 byte    protocol version, 4
    n bytes   the message (MessagePack, see `protocol.messages`)
    64 bytes  Ed25519 signature over  b"FM" version identity topic 0x00 message

The plan's identity and the topic are signed but not sent: a message that is replayed in another federation of
the same name, or on another topic, does not verify.
"""

from dataclasses import dataclass

from fedmedclip.protocol import topics
from fedmedclip.protocol.errors import MessageError, OtherVersionError
from fedmedclip.protocol.messages import (
    Abstain,
    Anew,
    Announcement,
    Block,
    BlockRequest,
    Complaint,
    Confirmation,
    Confirmations,
    HeadRequest,
    Join,
    JoinAnswer,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Message,
    Metrics,
    Participants,
    Plan,
    Receipt,
    Renewal,
    RenewalRequest,
    Reveal,
    RosterNotice,
    RoutedShares,
    Snapshot,
    State,
    StateRequest,
    Status,
    Survivors,
    Update,
    decode_message,
    encode_message,
)
from fedmedclip.protocol.signature import SIGNATURE_BYTES, SigningKey, is_signed_by

MAGIC = b"FM"
VERSION = 4
_HEADER = MAGIC + bytes([VERSION])

CARRIED: dict[str, tuple[type[Message], ...]] = {
    "plan": (Plan,),
    "head": (Announcement,),
    "blocks": (Block,),
    "up": (
        *(Join, Update, Block, BlockRequest, HeadRequest, State, Abstain, RenewalRequest),
        *(MaskKeys, MaskShares, MaskedUpdate, Confirmation, Reveal, Complaint, Metrics),
    ),
    "down": (
        *(JoinAnswer, Receipt, Announcement, Snapshot, Block, BlockRequest, StateRequest, Renewal),
        *(Participants, RoutedShares, Survivors, Confirmations, Anew),
    ),
    "status": (Status,),
    "roster": (RosterNotice,),
}

# Signed instead of an identity where the receiver, or a site that leaves its last will, knows no plan yet.
NO_IDENTITY = bytes(16)
_WITHOUT_IDENTITY = ("plan", "status", "roster")

# What frame, signature and the fields around an encoded head or a block of one take at most, in bytes.
OVERHEAD_BYTES = 128


@dataclass(frozen=True)
class Envelope:
    """A decoded message whose signature still has to be checked against somebody's key."""

    message: Message
    topic: str
    body: bytes
    signature: bytes

    def verify(self, public_key: bytes, identity: bytes) -> Message:
        """Return the message if this key signed it for this topic, in the federation of this plan identity.

        Raises MessageError otherwise.
        """
        if not is_signed_by(public_key, self.signature, _signed_bytes(self.topic, identity, self.body)):
            raise MessageError(
                f"the signature of a message on {self.topic} is not its sender's for this federation: "
                "it was forged, altered, or sent in another federation of this name"
            )
        return self.message


def seal(message: Message, topic: str, key: SigningKey, identity: bytes) -> bytes:
    """Return the bytes to publish on `topic` in the federation whose plan has this identity.

    Messages on `plan`, `status` and `roster` belong to no identity: there, any will do.
    """
    body = encode_message(message)
    return _HEADER + body + key.sign(_signed_bytes(topic, identity, body))


def open_envelope(payload: bytes, topic: str) -> Envelope:
    """Take received bytes apart.

    Raises MessageError for anything but a well-formed frame of this version with a message of this topic.
    """
    if len(payload) < len(_HEADER) + 1 + SIGNATURE_BYTES or payload[:2] != MAGIC:
        raise MessageError(f"a message on {topic} is not one of this protocol")
    if payload[2] != VERSION:
        raise OtherVersionError(
            f"a message on {topic} has protocol version {payload[2]}, this software speaks {VERSION}; "
            "update the older side"
        )
    body = payload[len(_HEADER) : -SIGNATURE_BYTES]
    message = decode_message(body)
    if not isinstance(message, CARRIED.get(topics.channel_of(topic), ())):
        raise MessageError(f"{type(message).__name__} is not a message for {topic}")
    return Envelope(message, topic, body, payload[-SIGNATURE_BYTES:])


def is_sealed_by(message: Message, signature: bytes, topic: str, public_key: bytes, identity: bytes) -> bool:
    """Whether a signature that somebody passes on is the one with which this key sealed a message."""
    return is_signed_by(public_key, signature, _signed_bytes(topic, identity, encode_message(message)))


def _signed_bytes(topic: str, identity: bytes, body: bytes) -> bytes:
    signed = NO_IDENTITY if topics.channel_of(topic) in _WITHOUT_IDENTITY else identity
    return _HEADER + signed + topic.encode() + b"\0" + body

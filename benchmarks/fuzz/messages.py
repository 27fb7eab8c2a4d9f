"""Messages: the frame, the body, and objects that come in blocks."""

import hashlib

import msgspec

from benchmarks.fuzz.examples import golden, golden_file, identity, key
from benchmarks.fuzz.mutations import after, by_section, mutated_bytes, mutated_msgpack
from benchmarks.fuzz.sections import join, split
from benchmarks.fuzz.target import Target, always
from fedmedclip.protocol.envelope import MAGIC, NO_IDENTITY, VERSION, open_envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Block, ObjectReference, Payload, decode_message, encode_message
from fedmedclip.protocol.objects import Assembly
from fedmedclip.protocol.signature import SIGNATURE_BYTES
from fedmedclip.protocol.topics import channel_of

_HEADER = MAGIC + bytes([VERSION])
_TOPICS = tuple(sorted({entry["topic"] for entry in golden()["messages"]}))
_RAW = 0x80
_LARGEST_OBJECT = 1 << 16
_COMES_WITH, _BLOCK, _DIGEST = range(3)


def _body(name: str) -> bytes:
    return golden_file(name)[len(_HEADER) : -SIGNATURE_BYTES]


def _take_body(data: bytes) -> None:
    message = decode_message(data)
    assert decode_message(encode_message(message)) == message


def _take_envelope(data: bytes) -> None:
    """One byte says topic and signer; with its highest bit the rest is the payload, else the signed body."""
    choice, rest = data[:1] or b"\0", data[1:]
    topic = _TOPICS[(choice[0] & 0x3F) % len(_TOPICS)]
    signer = key("site" if choice[0] & 0x40 else "aggregator")
    if choice[0] & _RAW:
        open_envelope(rest, topic).verify(signer.public_key, identity())
        return
    signed = NO_IDENTITY if channel_of(topic) in ("plan", "status") else identity()
    signature = signer.sign(_HEADER + signed + topic.encode() + b"\0" + rest)
    open_envelope(_HEADER + rest + signature, topic).verify(signer.public_key, identity())


def _envelope_seeds() -> list[bytes]:
    seeds = []
    for entry in golden()["messages"]:
        choice = _TOPICS.index(entry["topic"]) | (0x40 if entry["signer"] == "site" else 0)
        seeds.append(bytes([choice]) + _body(entry["file"]))
        seeds.append(bytes([choice | _RAW]) + golden_file(entry["file"]))
    return seeds


def _take_object(data: bytes) -> None:
    """The first section is a payload, the others are blocks, or ask for the right digest."""
    sections = split(data) or [(_COMES_WITH, b"")]
    try:
        payload = msgspec.msgpack.decode(sections[0][1], type=Payload)
        blocks = [
            msgspec.msgpack.decode(content, type=Block) for kind, content in sections[1:] if kind != _DIGEST
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(str(error)) from error
    if isinstance(payload, ObjectReference) and any(kind == _DIGEST for kind, _ in sections):
        ordered = {block.index: block.data for block in reversed(blocks)}
        whole = b"".join(ordered[index] for index in sorted(ordered))
        payload = msgspec.structs.replace(payload, digest=hashlib.sha256(whole).digest())
    assembly = Assembly(payload, _LARGEST_OBJECT)
    for block in blocks:
        assembly.add(block.index, block.data)
        assembly.request()
    if assembly.complete:
        assert len(assembly.data()) <= _LARGEST_OBJECT


def _object_seeds() -> list[bytes]:
    data = golden_file("heads/varied-lossless-1.bin")
    reference = ObjectReference(hashlib.sha256(data).digest(), len(data), 1024)
    blocks = [Block(reference.digest, index, data[1024 * index :][:1024]) for index in range(2)]
    parts = [(_COMES_WITH, msgspec.msgpack.encode(reference))]
    whole = [*parts, *((_BLOCK, msgspec.msgpack.encode(block)) for block in blocks)]
    return [
        join(whole),
        join([*whole, (_DIGEST, b"")]),
        join(whole[:2]),
        join([(_COMES_WITH, msgspec.msgpack.encode(data))]),
    ]


TARGETS = (
    Target(
        "messages",
        always(_take_body),
        (MessageError,),
        lambda: [_body(entry["file"]) for entry in golden()["messages"]],
        mutated_msgpack,
        weight=10,
    ),
    Target(
        "envelope",
        always(_take_envelope),
        (MessageError,),
        _envelope_seeds,
        after(1, lambda *three: (mutated_bytes if three[2].random() < 0.3 else mutated_msgpack)(*three)),
        weight=8,
    ),
    Target(
        "objects",
        always(_take_object),
        (MessageError,),
        _object_seeds,
        by_section(mutated_msgpack, kinds=3),
        weight=10,
    ),
)

"""Heads files of a site, without private head, of the centre, with an assurance; the proof of a state."""

import hashlib
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from benchmarks.fuzz.examples import SIZE, golden, golden_file, identity, key, write_bundle
from benchmarks.fuzz.mutations import by_section, mutated_bytes, mutated_json, mutated_msgpack, mutated_text
from benchmarks.fuzz.sections import contents, join
from benchmarks.fuzz.target import Take, Target, always
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.heads_file import Heads, load_heads, save_heads
from fedmedclip.protocol.bundle.bundle import MANIFEST, Bundle, open_bundle
from fedmedclip.protocol.envelope import MAGIC, VERSION
from fedmedclip.protocol.errors import HeadError, MessageError
from fedmedclip.protocol.heads.evidence import (
    Evidence,
    decode_evidence,
    encode_evidence,
    proven_head,
    proven_plan,
)
from fedmedclip.protocol.heads.head import HeadSpecification, head_digest
from fedmedclip.protocol.heads.heads_file import METADATA_KEY, HeadsMetadata, write_heads_file
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import Announcement, Plan, Snapshot
from fedmedclip.protocol.signature import SIGNATURE_BYTES
from fedmedclip.protocol.topics import down
from fedmedclip.protocol.topics import head as head_topic
from fedmedclip.protocol.topics import plan as plan_topic

_METHOD, _FEDERATION = "fedmedclip", "golden"
_LENGTH_BYTES = 8
_HEADER = MAGIC + bytes([VERSION])


def _prepare_heads_file(folder: Path) -> Take:
    """Sections: our metadata, the header without it, the values; a fourth one is the whole file."""
    write_bundle(folder)
    bundle, path = open_bundle(folder), folder / "site.heads"

    def take(data: bytes) -> None:
        metadata, header, values, whole = contents(data, 4)
        path.write_bytes(whole or _heads_file(metadata, header, values))
        heads = load_heads(path, bundle)
        shared_head_specification(heads.method, SIZE, 3).check(heads.shared)
        if heads.assurance is not None:
            assert heads.assurance.sets(np.full((2, 3), 1 / 3, np.float32)).any(axis=1).all()
            distances = heads.assurance.distances(np.eye(2, SIZE, dtype=np.float32))
            assert distances is None or np.isfinite(distances).all()

    return take


def _assured(heads: Heads, bundle: Bundle) -> Heads:
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(40, SIZE)).astype(np.float32)
    images = GroupedImages.of(embeddings, np.arange(40) % 3)
    return assured(heads, bundle, images, ReferenceImages(images, 3), DEFAULT_SETTINGS)


def _heads_file(metadata: bytes, header: bytes, values: bytes) -> bytes:
    entry = json.dumps({"__metadata__": {METADATA_KEY: metadata.decode("utf-8", "replace")}}).encode()
    # Both are objects: "{A}" and "{B}" become "{A,B}".
    merged = entry[:-1] + b"," + header[1:] if len(header) > 2 else entry
    return len(merged).to_bytes(_LENGTH_BYTES, "little") + merged + values


@cache
def _heads_file_seeds() -> tuple[bytes, ...]:
    shared = initial_shared_head(_METHOD, SIZE, 1)
    private = initial_private_head(_METHOD, SIZE, 3, 1, "site-a")
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_bundle(folder)
        bundle = open_bundle(folder)
        digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        centre = HeadsMetadata(1, _METHOD, _FEDERATION, "", 3, digest, list(bundle.manifest.class_names))
        save_heads(folder / "both", Heads(_METHOD, shared, private, _FEDERATION, "site-a", 3), bundle)
        save_heads(folder / "shared", Heads(_METHOD, shared, None, _FEDERATION, "site-a", 3), bundle)
        write_heads_file(folder / "centre", centre, shared, None)
        sure = _assured(Heads(_METHOD, shared, None, _FEDERATION, "site-a", 3), bundle)
        save_heads(folder / "assured", sure, bundle)
        files = [(folder / kind).read_bytes() for kind in ("both", "shared", "centre", "assured")]
    return tuple(seed for file in files for seed in (_sections_of(file), join([(0, b"")] * 3 + [(0, file)])))


def _sections_of(file: bytes) -> bytes:
    end = _LENGTH_BYTES + int.from_bytes(file[:_LENGTH_BYTES], "little")
    header = json.loads(file[_LENGTH_BYTES:end])
    metadata = header.pop("__metadata__")[METADATA_KEY]
    return join((0, part) for part in (metadata.encode(), json.dumps(header).encode(), file[end:]))


_MUTATE_HEADS = by_section(mutated_json, mutated_json, mutated_bytes)
_MUTATE_EVIDENCE = by_section(mutated_msgpack, mutated_msgpack, mutated_text, mutated_bytes)


def _evidence(data: bytes) -> bytes:
    """Sections: the plan's body, the carrier's, its topic, the head. Signed here, with the right digest."""
    plan_body, carrier, topic, head = contents(data, 4)
    named = topic.decode("utf-8", "replace")
    sealed_plan = _sealed(plan_body, plan_topic(_FEDERATION), bytes(16))
    sealed_carrier = _sealed(_with_digest(carrier, head), named, identity())
    return encode_evidence(Evidence(sealed_plan, named, sealed_carrier, head))


def _take_evidence(data: bytes) -> None:
    evidence = decode_evidence(data)
    keys = (key("aggregator").public_key,)
    plan = proven_plan(evidence, _FEDERATION, keys)
    version, head = proven_head(evidence, plan, _specification(), keys)
    _specification().check(head)
    assert version >= 0


def _sealed(body: bytes, topic: str, signed: bytes) -> bytes:
    return _HEADER + body + key("aggregator").sign(_HEADER + signed + topic.encode() + b"\0" + body)


@cache
def _specification() -> HeadSpecification:
    return shared_head_specification(_METHOD, golden_plan().embedding_size)


def _with_digest(carrier: bytes, head: bytes) -> bytes:
    try:
        message = msgspec.msgpack.decode(carrier, type=Announcement | Snapshot)
        digest = head_digest(_specification().from_bytes(head))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, HeadError):
        return carrier
    return msgspec.msgpack.encode(msgspec.structs.replace(message, head_digest=digest))


@cache
def golden_plan() -> Plan:
    """Return the plan among the golden messages."""
    return msgspec.msgpack.decode(_golden_body("plan"), type=Plan)


def _golden_body(name: str) -> bytes:
    entry = next(e for e in golden()["messages"] if e["file"] == f"messages/{name}.bin")
    return golden_file(entry["file"])[len(_HEADER) : -SIGNATURE_BYTES]


def _evidence_seeds() -> list[bytes]:
    head = golden_file("heads/version-0.f32")
    carriers = (("announcement", head_topic(_FEDERATION)), ("snapshot", down(_FEDERATION, "site-a")))
    return [
        join((0, part) for part in (_golden_body("plan"), _golden_body(name), topic.encode(), head))
        for name, topic in carriers
    ]


TARGETS = (
    Target(
        "heads-file",
        _prepare_heads_file,
        (HeadError,),
        lambda: list(_heads_file_seeds()),
        _MUTATE_HEADS,
        weight=0.4,
    ),
    Target(
        "evidence",
        always(lambda data: _take_evidence(_evidence(data))),
        (MessageError, HeadError),
        _evidence_seeds,
        _MUTATE_EVIDENCE,
        weight=1.2,
    ),
    Target(
        "evidence-bytes",
        always(_take_evidence),
        (MessageError, HeadError),
        lambda: [_evidence(seed) for seed in _evidence_seeds()],
        mutated_msgpack,
        weight=4,
    ),
)

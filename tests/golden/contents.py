"""What the golden files hold. All numbers come from elementwise float32 operations: the same anywhere."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedclip.protocol import messages, topics
from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.objects import blocks_of
from fedmedclip.protocol.participation import lot_of
from fedmedclip.protocol.signature import SigningKey, fingerprint
from tests.golden.sums import sum_under_masks

FEDERATION, SITE, IDENTITY = "golden", "site-a", bytes(range(16))
PRIVATE_KEYS = {"aggregator": bytes(range(32)), "site": bytes(range(32, 64))}
KEYS = {who: SigningKey(Ed25519PrivateKey.from_private_bytes(raw)) for who, raw in PRIVATE_KEYS.items()}
METHOD, EMBEDDING_SIZE, SEED = "fedmedclip", 12, 20261

# Arrays of every number of dimensions, as other methods may have them.
VARIED = HeadSpecification(
    (
        TensorSpecification("matrix", (24, 16), initial_bound=1.0),
        TensorSpecification("bias", (24,), initial_bound=0.125),
        TensorSpecification("cube", (3, 4, 5), initial_bound=0.5),
        TensorSpecification("vector", (10,), initial_bound=0.25),
        TensorSpecification("scalar", (), initial_bound=0.125),
        TensorSpecification("zero", (6, 4)),
    )
)
SHARED = shared_head_specification(METHOD, EMBEDDING_SIZE)
# What a site's images sum to: vectors, rows that are alike, and a symmetric matrix that they lie in.
STATISTICS = HeadSpecification(
    (
        TensorSpecification("shares", (5,), initial_bound=1.0),
        TensorSpecification("long", (70,), initial_bound=0.5),
        TensorSpecification("sums", (5, 32), initial_bound=1.0),
        TensorSpecification("scatter", (32, 32), symmetric=True),
        TensorSpecification("zero", (4, 4), symmetric=True),
        TensorSpecification("measured", (3,), initial_bound=0.125, measured=True),
    )
)
# So many symbols that those of two bits are packed more densely.
LARGE = HeadSpecification((TensorSpecification("matrix", (130, 128), initial_bound=1.0),))
CODECS = {
    "lossless": "lossless",
    "fp16": "fp16",
    "int8": "int8",
    "int8-array": "int8:scale=array",
    "int4": "int4",
    "int3": "int3",
    "int2": "int2",
    "sign": "sign",
    "topk": "topk",
    "topk-4bit": "topk:share=0.2,bits=4",
    "lowrank": "lowrank",
    "lowrank-2bit": "lowrank:rank=2,bits=2",
    "lowrank-8bit": "lowrank:rank=3,bits=8",
    "auto": "auto:bytes=280",
    "moments": "moments:bytes=420",
    "paper": "paper-fp16-zlib",
}
# Their encoders remember the round before.
WITH_MEMORY = ("lowrank", "auto")


def delta(specification: HeadSpecification, round_number: int) -> NamedArrays:
    """Return something like a trained difference: matrices near rank 2, some rows switched off."""
    noise = specification.initial(round_number)
    for name, array in noise.items():
        if array.ndim == 1:
            noise[name] = np.where(np.arange(len(array)) % 6 == 5, np.float32(0), np.float32(2.0**-6) * array)
        if array.ndim == 2:
            rows, columns = np.arange(array.shape[0]), np.arange(array.shape[1])
            first = ((rows[:, None] % 5) - 2) * ((columns % 3) - 1)
            second = ((rows[:, None] % 2) - 0.5) * ((columns % 7) - 3)
            pattern = first.astype(np.float32) + np.float32(0.25) * second.astype(np.float32)
            scaled = np.float32(2.0**-6) * pattern + np.float32(2.0**-7) * array
            noise[name] = np.where(rows[:, None] % 6 == 5, np.float32(0), scaled)
    return noise


def statistics(round_number: int) -> NamedArrays:
    """Return statistics of a head like `STATISTICS`: rows with much in common, a few large directions."""
    arrays = STATISTICS.initial(round_number)
    common = arrays["long"][:32] + np.float32(0.75)
    sizes = np.array([0.25, 2.0, 0.0, 1.0, 0.5], np.float32)
    arrays["sums"] = sizes[:, None] * (common + np.float32(0.25) * arrays["sums"])
    columns = np.arange(32, dtype=np.float32)
    first, second = (columns % 5) - 2, (columns % 3) - 1
    scatter = first[:, None] * first - np.float32(0.5) * second[:, None] * second
    arrays["scatter"] = np.float32(2.0**-4) * (scatter + np.eye(32, dtype=np.float32))
    return arrays


def full_size_digests() -> dict[str, str]:
    """Return by codec the SHA-256 over two rounds at D = 512: encoded, memory and decoded digest of each.

    Matrices of that size take other paths through numpy and its BLAS than small ones do.
    """
    specification, digests = shared_head_specification(METHOD, 512), {}
    for name in ("int8", "topk", "lowrank", "auto:bytes=1460"):
        codec, memory, hashed = codec_named(name), b"", hashlib.sha256()
        for round_number in (1, 2):
            encoded = encode_head(codec, delta(specification, round_number), specification, memory)
            memory = encoded.memory
            hashed.update(encoded.data + memory + head_digest(decode_head(encoded.data, specification)))
        digests[name] = hashed.hexdigest()
    return digests


def extremes() -> NamedArrays:
    """Return values at the edges of float32: signed zeros, subnormal numbers, the largest ones."""
    edges = np.array([0.0, -0.0, 1e-45, -1e-40, 2.0**-126, 3.4028235e38, -3.4028235e38, 1.0], np.float32)
    return {
        tensor.name: np.resize(edges, tensor.size).reshape(tensor.shape).astype(np.float32)
        for tensor in VARIED.tensors
    }


def encoded_heads() -> Iterator[tuple[str, str, HeadSpecification, bytes]]:
    """Yield (file, codec, specification, encoded head); round 2 is encoded with the memory of round 1."""
    for kind, specification in (("shared", SHARED), ("varied", VARIED)):
        for label, name in CODECS.items():
            codec, memory = codec_named(name), b""
            for round_number in (1, 2) if label in WITH_MEMORY else (1,):
                wanted = delta(specification, round_number)
                if label == "lowrank-2bit":
                    # So that groups of rank 0 stand between others in a file.
                    wanted |= {
                        name: np.zeros_like(wanted[name]) for name in wanted.keys() & {"vector", "scalar"}
                    }
                encoded = encode_head(codec, wanted, specification, memory)
                memory = encoded.memory
                yield f"heads/{kind}-{label}-{round_number}.bin", name, specification, encoded.data
    memory = b""
    for round_number in (1, 2):
        name = CODECS["moments"]
        encoded = encode_head(codec_named(name), statistics(round_number), STATISTICS, memory)
        memory = encoded.memory
        yield f"heads/statistics-moments-{round_number}.bin", name, STATISTICS, encoded.data
    for name in ("int2", "lowrank"):
        encoded = encode_head(codec_named(name), delta(LARGE, 1), LARGE)
        yield f"heads/large-{name}-1.bin", name, LARGE, encoded.data
    encoded = encode_head(codec_named("lossless"), extremes(), VARIED)
    yield "heads/varied-lossless-extremes.bin", "lossless", VARIED, encoded.data


def sealed_messages(encoded: bytes, snapshot: bytes) -> Iterator[tuple[str, str, str, messages.Message]]:
    """Yield (file, topic, who signs, message): every message, and every form that its payload can take."""
    bundle, head = bytes(range(100, 132)), bytes(range(200, 232))
    reference = messages.ObjectReference(bytes(range(60, 92)), len(snapshot), 1024)
    first, second = blocks_of(snapshot, reference)
    mark = fingerprint(KEYS["site"].public_key)
    training: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "adaptive": True, "optimizer": "adamw"}
    plan = messages.Plan(
        identity=IDENTITY,
        aggregator_key=KEYS["aggregator"].public_key,
        method=METHOD,
        bundle_digest=bundle,
        embedding_size=EMBEDDING_SIZE,
        rounds=50,
        seed=SEED,
        uplink_codec="lowrank",
        downlink_codec="auto:bytes=1460",
        training=training,
        number=1_800_000_000,
        revision=1,
        paused=False,
        maximum_update_norm=1000.0,
        start=None,
    )
    revised = msgspec.structs.replace(plan, revision=2, rounds=80, paused=True, start=bundle)
    terms = messages.PrivacyTerms(8.0, 1e-5, "patient", 16, 8, 1.0, 0.25, 30)
    spent = messages.PrivacySpent(0.5, 2.25, 8.0, 1e-5)
    down, up = topics.down(FEDERATION, SITE), topics.up(FEDERATION, SITE)
    closed = "round 1 is closed — 2 is open"
    refusal = "the name 'site-a' belongs to another site (another key); choose another name"
    secure = messages.Secure("subspace:rank=4,directions=16", 10, 1000, 0.25, 3)
    summed = msgspec.structs.replace(plan, secure=secure)
    yield "plan-secure", topics.plan(FEDERATION), "aggregator", summed
    yield "plan", topics.plan(FEDERATION), "aggregator", plan
    private = msgspec.structs.replace(plan, privacy=terms)
    yield "plan-private", topics.plan(FEDERATION), "aggregator", private
    yield "plan-revised", topics.plan(FEDERATION), "aggregator", revised
    yield (
        "announcement-0",
        topics.head(FEDERATION),
        "aggregator",
        messages.Announcement(0, head, False, None, None),
    )
    yield (
        "announcement",
        topics.head(FEDERATION),
        "aggregator",
        messages.Announcement(1, head, False, encoded, None),
    )
    blocked = messages.Announcement(1_000_000, head, True, reference, (1 << 32) - 1)
    yield "announcement-blocks", topics.head(FEDERATION), "aggregator", blocked
    yield "block-0", topics.blocks(FEDERATION), "aggregator", first
    yield "block-1", topics.blocks(FEDERATION), "aggregator", second
    moment = messages.Moment(1_800_000_000, 3, 127)
    willed = messages.Moment(1, 128, messages.LAST_WORD)
    yield (
        "join",
        up,
        "site",
        messages.Join(KEYS["site"].public_key, bundle, 386, 7, "0.2.0", "", moment, 1_800_000_000),
    )
    cannot = "this site's bundle has digest 0011223344556677; copy the federation's bundle"
    declined = messages.Join(KEYS["site"].public_key, head, 386, -1, "0.2.0", cannot, moment, 1)
    yield "join-declined", up, "site", declined
    yield (
        "join-accepted",
        down,
        "aggregator",
        messages.JoinAnswer(mark, True, "", moment, None, 1_800_000_000),
    )
    yield "join-refused", down, "aggregator", messages.JoinAnswer(mark, False, refusal, moment, willed, 2)
    yield "update", up, "site", messages.Update(1, 386, encoded, 0)
    yield "update-private", up, "site", messages.Update(1, 379, encoded, 0, spent)
    yield "update-blocks", up, "site", messages.Update(1_000_000, 1_000_000_000, reference, 200)
    yield "receipt", down, "aggregator", messages.Receipt(1, True, "", False, mark)
    yield (
        "receipt-refused",
        down,
        "aggregator",
        messages.Receipt(1, False, closed, True, mark),
    )
    yield "block-request", up, "site", messages.BlockRequest(reference.digest, [0, 1, 127, 128, 16_383])
    yield "head-request", up, "site", messages.HeadRequest(7)
    yield "head-request-whole", up, "site", messages.HeadRequest(-1)
    yield "abstain", up, "site", messages.Abstain(3, "training needs at least 2 labelled images")
    yield "state-request", down, "aggregator", messages.StateRequest(10)
    yield "state", up, "site", messages.State(snapshot)
    yield "state-blocks", up, "site", messages.State(reference)
    yield "snapshot", down, "aggregator", messages.Snapshot(2, head, False, snapshot, None)
    yield "snapshot-blocks", down, "aggregator", messages.Snapshot(300, head, True, reference, None)
    yield "status", topics.status(FEDERATION, SITE), "site", messages.Status(mark, True, 3, moment)
    yield "status-will", topics.status(FEDERATION, SITE), "site", messages.Status(mark, False, -1, willed)
    yield "roster", topics.roster(FEDERATION), "aggregator", messages.RosterNotice(3, snapshot)
    yield "roster-blocks", topics.roster(FEDERATION), "aggregator", messages.RosterNotice(900, reference)
    figures = messages.Figures(151, 148, 9, 62)
    metrics = messages.Metrics(
        7, 0, 7, 1, 386, 48, 96, messages.Figures(104, 101, 31, 127), figures, None, figures, "0.3.0"
    )
    yield "metrics", up, "site", metrics
    yield "metrics-few", up, "site", messages.Metrics(8, 1, None, 2, *[None] * 7, "0.3.0")
    yield "renewal-request", up, "site", messages.RenewalRequest(bytes(range(48)))
    yield "renewal", down, "aggregator", messages.Renewal(bytes(range(64)))


def messages_of_a_sum(encoded: bytes, snapshot: bytes) -> Iterator[tuple[str, str, str, messages.Message]]:
    """Yield (file, topic, who signs, message) of one try to sum updates under masks, and of its ends."""
    down, up = topics.down(FEDERATION, SITE), topics.up(FEDERATION, SITE)
    cipher, mask, digest, half = (bytes(range(start, start + 32)) for start in (1, 40, 80, 120))
    signature = bytes(range(64))
    listed = [
        messages.Listed("site-a", KEYS["site"].public_key, cipher, mask, signature),
        messages.Listed("site-b", None, mask, cipher, signature),
        messages.Listed("site-c", None, half, cipher, signature),
    ]
    sealed = messages.SealedShares(bytes(range(50)), half[:16], half[16:])
    reference = messages.ObjectReference(digest, len(snapshot), 1024)
    yield "mask-keys", up, "site", messages.MaskKeys(3, cipher, mask, False)
    yield "mask-keys-spent", up, "site", messages.MaskKeys(3, cipher, mask, True)
    yield "participants", down, "aggregator", messages.Participants(3, [0.25, 2.0**-9], True, listed)
    yield "mask-shares", up, "site", messages.MaskShares(digest, half[:16], [sealed] * 3)
    yield "routed-shares", down, "aggregator", messages.RoutedShares(digest, [(0, sealed), (2, sealed)])
    yield "masked-update", up, "site", messages.MaskedUpdate(digest, encoded)
    yield "masked-update-blocks", up, "site", messages.MaskedUpdate(digest, reference)
    yield "survivors", down, "aggregator", messages.Survivors(digest, [0, 2])
    yield "confirmation", up, "site", messages.Confirmation(digest, [0, 2])
    yield (
        "confirmations",
        down,
        "aggregator",
        messages.Confirmations(digest, [(0, signature), (999, signature)]),
    )
    yield "reveal", up, "site", messages.Reveal(digest, [bytes(range(17)), bytes(17)])
    yield "complaint", up, "site", messages.Complaint(digest, 2, "the shares are not sealed for this site")
    yield "anew", down, "aggregator", messages.Anew(digest, "2 of 4 participants are left, 3 are needed")


def golden_files() -> dict[str, bytes]:
    """Return every golden file by its path in the folder, `manifest.json` among them."""
    files: dict[str, bytes] = {}
    heads = []
    for path, codec, specification, encoded in encoded_heads():
        files[path] = encoded
        digest = head_digest(decode_head(encoded, specification)).hex()
        heads.append(
            {"file": path, "codec": codec, "specification": shapes(specification), "head_digest": digest}
        )
    sealed = []
    encoded, snapshot = files["heads/shared-lowrank-1.bin"], files["heads/varied-lossless-1.bin"]
    for name, topic, who, message in (
        *sealed_messages(encoded, snapshot),
        *messages_of_a_sum(encoded, snapshot),
    ):
        path = f"messages/{name}.bin"
        files[path] = seal(message, topic, KEYS[who], IDENTITY)
        body = readable(msgspec.msgpack.decode(messages.encode_message(message)))
        kind = type(message).__name__
        sealed.append({"file": path, "topic": topic, "signer": who, "message": kind, "body": body})
    initial = initial_shared_head(METHOD, EMBEDDING_SIZE, SEED)
    files["heads/version-0.f32"] = SHARED.to_bytes(initial)
    manifest = {
        "protocol_version": 4,
        "zstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "keys": {
            who: {"private": raw.hex(), "public": KEYS[who].public_key.hex()}
            for who, raw in PRIVATE_KEYS.items()
        },
        "identity": IDENTITY.hex(),
        "version_0": {
            "file": "heads/version-0.f32",
            "federation_seed": SEED,
            "specification": shapes(SHARED),
            "initial_bounds": [tensor.initial_bound for tensor in SHARED.tensors],
            "head_digest": head_digest(initial).hex(),
        },
        "lots": [
            {"federation_seed": seed, "site": site, "round_number": number, "lot": lot_of(seed, site, number)}
            for seed, site, number in ((SEED, SITE, 1), (SEED, SITE, 2), (SEED, "site-b", 1), (0, "ä", 10**6))
        ],
        "full_size": full_size_digests(),
        "sum": sum_under_masks(),
        "messages": sealed,
        "heads": heads,
    }
    files["manifest.json"] = one_entry_a_line(manifest).encode()
    return files


def one_entry_a_line(manifest: dict[str, Any]) -> str:
    """Return the manifest as JSON that a person can read and a difference shows well."""
    parts = []
    for name, value in manifest.items():
        if isinstance(value, list):
            entries = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in value)
            parts.append(f"{json.dumps(name)}: [\n  {entries}\n ]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def shapes(specification: HeadSpecification) -> list[list[Any]]:
    """Return [name, [dimensions]] of each array, and "symmetric" behind it where it is."""
    return [
        [tensor.name, list(tensor.shape), *(["symmetric"] if tensor.symmetric else [])]
        for tensor in specification.tensors
    ]


def readable(value: Any) -> Any:
    """Return a MessagePack value as JSON can hold it: binary as {"hex": ...}."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [readable(item) for item in value] if isinstance(value, list) else value

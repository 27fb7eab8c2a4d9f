"""The golden files, read by our decoder and by one that was written from the specification alone."""

import ast
import json
import struct
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedmedclip.protocol import messages
from fedmedclip.protocol.codecs import decode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, OVERHEAD_BYTES, seal
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.participation import LOTS
from tests.golden.contents import KEYS, METHOD
from tests.golden.make import FOLDER, differences, specification_of
from tests.protocol import independent_decoder, independent_unmasking

MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
HEADS = {entry["file"]: entry for entry in MANIFEST["heads"]}
MESSAGES = {entry["file"]: entry for entry in MANIFEST["messages"]}
UPDATE_OVERHEAD_LIMIT = 160


def test_this_code_reads_and_writes_exactly_the_golden_files():
    assert differences() == []


def test_there_is_a_golden_file_for_every_message():
    every = {message.__name__ for message in messages.Message.__args__}
    assert {entry["message"] for entry in MESSAGES.values()} == every


@pytest.mark.parametrize("file", MESSAGES)
def test_the_independent_decoder_reads_each_message_and_its_signature(file):
    entry = MESSAGES[file]
    items, signed, signature = independent_decoder.open_envelope(
        (FOLDER / file).read_bytes(), entry["topic"], bytes.fromhex(MANIFEST["identity"])
    )
    public_key = bytes.fromhex(MANIFEST["keys"][entry["signer"]]["public"])
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    assert with_binary_as_text(items) == entry["body"]


@pytest.mark.parametrize("file", HEADS)
def test_both_decoders_give_the_same_bits(file):
    entry, encoded = HEADS[file], (FOLDER / file).read_bytes()
    theirs = independent_decoder.decode_head(encoded, entry["specification"])
    assert independent_decoder.head_digest(theirs) == entry["head_digest"]
    ours = decode_head(encoded, specification_of(entry))
    for name, (_, values) in theirs.items():
        assert ours[name].astype("<f4").tobytes() == struct.pack(f"<{len(values)}f", *values)


def test_the_independent_decoder_is_short_and_imports_nothing_of_ours():
    source = Path(independent_decoder.__file__).read_text()
    documentation, imported = 0, set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef) and (text := ast.get_docstring(node, clean=False)):
            documentation += sum(bool(line.strip()) for line in f'"""{text}"""'.splitlines())
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert sum(bool(line.strip()) for line in source.splitlines()) - documentation <= 182
    assert imported <= {*sys.stdlib_module_names, "msgspec", "zstandard"}


def test_both_derive_the_same_version_0():
    entry = MANIFEST["version_0"]
    theirs = independent_decoder.version_0(
        entry["federation_seed"], entry["specification"], entry["initial_bounds"]
    )
    assert independent_decoder.head_digest(theirs) == entry["head_digest"]
    size = entry["specification"][0][1][0]
    ours = initial_shared_head(METHOD, size, entry["federation_seed"])
    stored = (FOLDER / entry["file"]).read_bytes()
    assert b"".join(struct.pack(f"<{len(values)}f", *values) for _, values in theirs.values()) == stored
    assert b"".join(array.astype("<f4").tobytes() for array in ours.values()) == stored


@pytest.mark.parametrize("entry", MANIFEST["lots"])
def test_the_lots_are_what_the_specification_says(entry):
    named = entry["federation_seed"], entry["site"], entry["round_number"], "participation"
    assert independent_decoder.named_seed(*named) >> 31 == entry["lot"]


def test_an_independent_unmasking_comes_to_the_sum_of_the_golden_try():
    entry = MANIFEST["sum"]
    found = independent_unmasking.unmask(
        bytes.fromhex(entry["participants"]),
        entry["bits"],
        [bytes.fromhex(seed) for seed in entry["cipher_seeds"]],
        [bytes.fromhex(seed) for seed in entry["seed_commitments"]],
        [[[bytes.fromhex(part) for part in parts] for parts in row] for row in entry["sealed"]],
        {int(place): bytes.fromhex(data) for place, data in entry["masked"].items()},
    )
    assert found == entry["sum"]
    imported = set()
    for node in ast.walk(ast.parse(Path(independent_unmasking.__file__).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported.add((getattr(node, "module", None) or node.names[0].name).split(".")[0])
    assert imported == {"hashlib", "msgspec", "cryptography"}


SPENT = messages.PrivacySpent(0.5, 2.25, 8.0, 1e-5)
LONGEST_DOWN = f"fmc1/{'f' * 32}/down/{'s' * 32}"
DATA = bytes(1 << 17)


@pytest.mark.parametrize(
    "message",
    [
        messages.Announcement(1_000_000, bytes(32), True, DATA, LOTS - 1),
        messages.Snapshot(1_000_000, bytes(32), True, DATA, LOTS - 1),
        messages.Block(bytes(32), 16_383, DATA),
        messages.Update(1_000_000, 1_000_000_000, DATA, (1 << 32) - 1, SPENT),
    ],
)
def test_no_message_with_data_has_more_around_it_than_promised(message):
    sealed = seal(message, LONGEST_DOWN, KEYS["site"], NO_IDENTITY)
    assert len(sealed) - len(DATA) <= OVERHEAD_BYTES <= UPDATE_OVERHEAD_LIMIT


def test_around_a_usual_update_there_are_78_bytes():
    sealed = seal(messages.Update(50, 386, bytes(2920), 0), LONGEST_DOWN, KEYS["site"], NO_IDENTITY)
    assert len(sealed) - 2920 == 78


def test_around_the_largest_update_there_are_86_bytes_and_no_name_among_them():
    update = messages.Update(1_000_000, 1_000_000_000, DATA, 127)
    sealed = seal(update, LONGEST_DOWN, KEYS["site"], NO_IDENTITY)
    assert len(sealed) - len(DATA) == 86
    assert b"fff" not in sealed.replace(DATA, b"")
    assert b"sss" not in sealed.replace(DATA, b"")
    private = seal(msgspec.structs.replace(update, privacy=SPENT), LONGEST_DOWN, KEYS["site"], NO_IDENTITY)
    assert len(private) - len(DATA) == 122


def with_binary_as_text(value):
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [with_binary_as_text(item) for item in value] if isinstance(value, list) else value

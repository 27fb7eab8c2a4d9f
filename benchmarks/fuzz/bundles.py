"""Bundles: the manifest, the files that it names, the reference set, tokenizers and prompts."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import ftfy
import msgspec
import tokenizers

from benchmarks.fuzz.examples import ROOT, SIZE, bundle_files, key, rows
from benchmarks.fuzz.mutations import (
    Mutation,
    by_section,
    mutated_bytes,
    mutated_json,
    mutated_msgpack,
    mutated_text,
)
from benchmarks.fuzz.sections import contents, join
from benchmarks.fuzz.target import Take, Target, always
from fedmedclip.edge_client.features.references import (
    decode_reference,
    encode_reference,
    quantised,
    reference_of,
    summarised,
    target_embeddings,
)
from fedmedclip.protocol.bundle.bundle import (
    CLASS_EMBEDDINGS,
    IMAGE_ENCODER,
    MANIFEST,
    REFERENCE_FILE,
    TextParity,
    TextTower,
    decode_manifest,
    open_bundle,
    read_class_embeddings,
)
from fedmedclip.protocol.bundle.byte_pairs import BytePairs
from fedmedclip.protocol.bundle.prompts import prompt_texts, read_classes_toml
from fedmedclip.protocol.bundle.self_test import SELF_TEST_EMBEDDINGS, SELF_TEST_IMAGES, read_self_test
from fedmedclip.protocol.bundle.signature import SIGNATURE_FILE, require_signer
from fedmedclip.protocol.bundle.tokenizer import TextLibraries, open_tokenizer
from fedmedclip.protocol.errors import BundleError, InvalidInputError

_FILES = (MANIFEST, CLASS_EMBEDDINGS, SELF_TEST_IMAGES, SELF_TEST_EMBEDDINGS, REFERENCE_FILE, SIGNATURE_FILE)
_CONTEXT_LENGTH = 16


def _take_manifest(data: bytes) -> None:
    manifest = decode_manifest(data, Path(MANIFEST))
    assert manifest.files.keys() >= {IMAGE_ENCODER, CLASS_EMBEDDINGS}


def _prepare_bundle(folder: Path) -> Take:
    """Files section by section, in the order of `_FILES`; an empty signature is made, as the digests are.

    So what opens a bundle is led on to the contents of the files.
    """
    (folder / IMAGE_ENCODER).write_bytes(bundle_files()[IMAGE_ENCODER])

    def take(data: bytes) -> None:
        files = dict(zip(_FILES, contents(data, len(_FILES)), strict=True))
        files[MANIFEST] = _with_right_digests(files)
        files[SIGNATURE_FILE] = files[SIGNATURE_FILE] or _signature(files[MANIFEST])
        for name, content in files.items():
            (folder / name).write_bytes(content)
        bundle = open_bundle(folder)
        read_self_test(bundle)
        reference_of(bundle)
        require_signer(folder, key("aggregator").public_key)

    return take


def _with_right_digests(files: dict[str, bytes]) -> bytes:
    try:
        manifest = json.loads(files[MANIFEST])
        for name in manifest["files"].keys() & files.keys():
            manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
        return json.dumps(manifest).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return files[MANIFEST]


def _signature(manifest: bytes) -> bytes:
    signer = key("aggregator")
    return signer.public_key + signer.sign(b"fedmedclip bundle\0" + manifest)


def _bundle_seeds() -> list[bytes]:
    files = bundle_files()
    return [join((0, files.get(name, b"")) for name in _FILES)]


def _mutated_array(data: bytes, other: bytes, draw: Random) -> bytes:
    """Change an .npy file: mostly its header, which says how much there is to read."""
    end = data.find(b"\n") + 1
    if not end or draw.random() < 0.3:
        return mutated_bytes(data, other, draw)
    header = mutated_text(data[10:end], other[10:128], draw)
    if draw.random() < 0.5:
        shape = b"(%d, %d)" % (
            draw.choice((0, 1, 3, 1 << 20, 1 << 32, 1 << 40)),
            draw.choice((0, 12, 1 << 10, 1 << 20)),
        )
        header = b"{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n" % (
            draw.choice((b"<f4", b"|u1", b"|O", b">f4", b"<f8", b"|V1000000", b"<U99999999")), shape
        )  # fmt: skip
    length = len(header) if draw.random() < 0.9 else draw.randrange(1 << 16)
    return data[:8] + min(length, 0xFFFF).to_bytes(2, "little") + header + data[end:]


def _prepare_class_embeddings(folder: Path) -> Take:
    path = folder / CLASS_EMBEDDINGS

    def take(data: bytes) -> None:
        path.write_bytes(data)
        assert read_class_embeddings(path, (3, SIZE)).shape == (3, SIZE)

    return take


def _take_reference(data: bytes) -> None:
    reference = decode_reference(data, SIZE)
    assert target_embeddings(reference, 4, seed=1).shape[1] == SIZE


def _vocabulary() -> bytes:
    return msgspec.json.encode(
        BytePairs(
            ["t u", "m o", "tu mo", "r</w> x"],
            ["<start>", "<end>"],
            letters=[(0x61, 0x7A)],
            numbers=[(0x30, 0x39)],
            others=[(0x21, 0x2F)],
            spellings={"s": "sſ"},
        )
    )


def _tower(kind: str) -> TextTower:
    return msgspec.convert(
        {
            "tokenizer": kind,
            "context_length": _CONTEXT_LENGTH,
            "cleaning": "lower",
            "parity": TextParity(1, 0.0, 1.0),
            "blanked_token": None,
        },
        TextTower,
    )


def _take_tokenizer(kind: str) -> Take:
    libraries = TextLibraries(ftfy.fix_text, tokenizers.Tokenizer.from_str)
    tower = _tower(kind)

    def take(data: bytes) -> None:
        vocabulary, text = contents(data, 2)
        tokenize = open_tokenizer(vocabulary, tower, libraries)
        tokens = tokenize([text.decode("utf-8", "replace"), "a tumor's"])
        assert tokens.shape == (2, _CONTEXT_LENGTH)

    return take


def _hugging_face_tokenizer() -> bytes:
    model = tokenizers.models.WordLevel({"a": 0, "tumor": 1, "[UNK]": 2, "'": 3}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=_CONTEXT_LENGTH)
    tokenizer.enable_truncation(_CONTEXT_LENGTH)
    return tokenizer.to_str().encode()


def _tokenizer_seeds(vocabulary: Callable[[], bytes]) -> list[bytes]:
    texts = ("a picture of a tumor's 3 parts", "", "ſ &amp; ｆｕｌｌ \u00c3\u00a9")
    return [join([(0, vocabulary()), (0, text.encode())]) for text in texts]


def _prepare_prompts(folder: Path) -> Take:
    path = folder / "classes.toml"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        prompts = read_classes_toml(path)
        for phrases in prompts.classes.values():
            assert prompt_texts(prompts.templates, phrases)

    return take


_JSON_AND_TEXT: Mutation = by_section(mutated_json, mutated_text)

TARGETS = (
    Target(
        "manifest",
        always(_take_manifest),
        (BundleError,),
        lambda: [bundle_files()[MANIFEST]],
        mutated_json,
        weight=1.5,
    ),
    Target(
        "bundle",
        _prepare_bundle,
        (BundleError, InvalidInputError),
        _bundle_seeds,
        by_section(
            mutated_json, _mutated_array, _mutated_array, _mutated_array, mutated_msgpack, mutated_bytes
        ),
        weight=0.05,
    ),
    Target(
        "class-embeddings",
        _prepare_class_embeddings,
        (BundleError,),
        lambda: [bundle_files()[CLASS_EMBEDDINGS], bundle_files()[SELF_TEST_IMAGES]],
        _mutated_array,
        weight=0.8,
    ),
    Target(
        "reference",
        always(_take_reference),
        (InvalidInputError,),
        lambda: [encode_reference(quantised(rows(4))), encode_reference(summarised(rows(8), 3, 0.5, 1))],
        mutated_msgpack,
        weight=8,
    ),
    Target(
        "tokenizer-byte-pairs",
        always(_take_tokenizer("byte pairs")),
        (BundleError, InvalidInputError),
        lambda: _tokenizer_seeds(_vocabulary),
        _JSON_AND_TEXT,
        weight=0.6,
    ),
    Target(
        "tokenizer-hugging-face",
        always(_take_tokenizer("hugging face")),
        (BundleError, InvalidInputError),
        lambda: _tokenizer_seeds(_hugging_face_tokenizer),
        _JSON_AND_TEXT,
        weight=0.6,
    ),
    Target(
        "prompts",
        _prepare_prompts,
        (InvalidInputError,),
        lambda: [(ROOT / "fedmedclip" / "examples" / "classes.toml").read_bytes()],
        mutated_text,
        weight=0.5,
    ),
)

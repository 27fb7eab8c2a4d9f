"""A site's heads, and the file that they are saved in and read from (`protocol.heads.heads_file`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError, safe_open

from fedmedclip.edge_client.heads.assurance import Assurance
from fedmedclip.edge_client.heads.ensemble import ENTROPY
from fedmedclip.edge_client.heads.heads import private_head_specification
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import FedMedClipError, HeadError
from fedmedclip.protocol.heads.assurance import assurance_specification
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.heads_file import (
    FORMAT,
    FORMAT_WITH_ASSURANCE,
    METADATA_KEY,
    EnsembleRule,
    HeadsMetadata,
    Judgement,
    encoded_heads_file,
    write_encoded_heads,
)
from fedmedclip.protocol.heads.heads_signature import HEADER_LIMIT
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.signature import SigningKey
from fedmedclip.protocol.trust.decision import Trust

ZERO_SHOT_ANSWERS = "their site found zero-shot better on its validation split; zero-shot answers"
NO_PRIVATE_HEAD = "no private head; the shared head answers alone"


@dataclass(frozen=True)
class Heads:
    """The heads that classify at one site.

    `private` is None when there is no private head: for a method without one, or to hand the shared head to
    a clinic that did not train, for which `site` is empty. `version` is that of the shared head, `judgement`
    what their site found on its validation split, `assurance` how far its answers are to be relied on: both
    are of these heads, and of no others.
    """

    method: str
    shared: NamedArrays
    private: NamedArrays | None
    federation: str
    site: str
    version: int
    ensemble: EnsembleRule = ENTROPY
    judgement: Judgement | None = None
    assurance: Assurance | None = None

    @property
    def zero_shot_answers(self) -> bool:
        """Whether their site found zero-shot better: then that answers, and not these heads."""
        return self.judgement is not None and self.judgement.zero_shot_answers

    @property
    def lack_private_head(self) -> bool:
        """Whether the method has a private head that classifies, and it is not among them."""
        return self.private is None and site_method(self.method).private_pass is not None


def save_heads(path: Path, heads: Heads, bundle: Bundle, key: SigningKey | None = None) -> None:
    """Write the file for its owner only, whole or not at all: an earlier one stays until the new is on disk.

    With a `key` it is signed.

    Raises HeadError when it cannot be written.
    """
    write_encoded_heads(path, encoded_heads(heads, bundle, key))


def encoded_heads(heads: Heads, bundle: Bundle, key: SigningKey | None = None) -> bytes:
    """Return the content of the file that `save_heads` writes, the same for the same heads."""
    assurance = heads.assurance
    metadata = HeadsMetadata(
        FORMAT if assurance is None else FORMAT_WITH_ASSURANCE,
        heads.method,
        heads.federation,
        heads.site,
        heads.version,
        bundle.digest.hex(),
        bundle.manifest.class_names,
        heads.ensemble,
        heads.judgement,
        None if assurance is None else assurance.metadata,
    )
    arrays = None if assurance is None else assurance.arrays
    return encoded_heads_file(metadata, heads.shared, heads.private, key, arrays)


def read_heads_metadata(path: Path) -> HeadsMetadata:
    """Read whose heads a file holds, of whatever bundle. Raises HeadError when that cannot be told."""
    with _faults_named(path):
        _check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            return _decode_metadata(file.metadata())


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HeadError(f"cannot read heads file {path}: {error.strerror or error}") from error
    except (SafetensorError, UnicodeDecodeError) as error:
        raise HeadError(f"heads file {path} is damaged ({error}); copy it again") from error
    except FedMedClipError as error:
        raise HeadError(f"heads file {path}: {error}") from error


def load_heads(path: Path, bundle: Bundle) -> Heads:
    """Read and check a heads file that was made with this bundle.

    Shapes are checked against the method's specification before any array is read. Raises HeadError when the
    file is missing, damaged, of an unknown format or method, or belongs to another bundle.
    """
    with _faults_named(path):
        _check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            metadata = _decode_metadata(file.metadata())
            _check_bundle(metadata, bundle)
            sizes = (bundle.manifest.embedding_size, len(bundle.manifest.class_names))
            shared_specification = shared_head_specification(metadata.method, *sizes)
            private_specification = None
            if any(name.startswith("private.") for name in file.keys()):  # noqa: SIM118 - not a dict
                private_specification = private_head_specification(metadata.method, *sizes)
            expected = {"shared": shared_specification}
            if private_specification:
                expected["private"] = private_specification
            if metadata.assurance is not None:
                expected["assurance"] = assurance_specification(metadata.assurance, *sizes)
            _check_layout(file, expected)
            read = {prefix: _read_head(file, prefix, found) for prefix, found in expected.items()}
    return Heads(
        metadata.method,
        read["shared"],
        read.get("private"),
        metadata.federation,
        metadata.site,
        metadata.version,
        metadata.ensemble,
        metadata.judgement,
        None if metadata.assurance is None else Assurance(metadata.assurance, read["assurance"]),
    )


def load_trusted_heads(path: Path, bundle: Bundle, trust: Trust) -> Heads:
    """Read a heads file as `load_heads` does, when a trusted key signed it. Raises HeadError."""
    trust.require_heads(path)
    return load_heads(path, bundle)


def _check_header_size(path: Path) -> None:
    """Refuse a header that is too large before the safetensors reader allocates it."""
    with open_regular_file(path) as file:
        announced = int.from_bytes(file.read(8), "little")
    if announced > HEADER_LIMIT:
        raise HeadError(f"its header would be {announced} bytes, more than {HEADER_LIMIT}; not a heads file")


def _decode_metadata(found: dict[str, str] | None) -> HeadsMetadata:
    encoded = (found or {}).get(METADATA_KEY)
    if encoded is None:
        raise HeadError(f"it has no {METADATA_KEY!r} metadata; it was not written by fedmedclip")
    try:
        found_format = msgspec.json.decode(encoded, type=dict[str, object]).get("format")
        if found_format not in (FORMAT, FORMAT_WITH_ASSURANCE):
            raise HeadError(
                f"format {found_format!r} is not known (this version reads {FORMAT} and "
                f"{FORMAT_WITH_ASSURANCE}); update fedmedclip"
            )
        return msgspec.json.decode(encoded, type=HeadsMetadata)
    except MALFORMED as error:
        raise HeadError(f"its metadata is damaged ({error}); copy it again") from error


def _check_bundle(metadata: HeadsMetadata, bundle: Bundle) -> None:
    if metadata.bundle_digest != bundle.digest.hex():
        raise HeadError(
            f"these heads belong to bundle {metadata.bundle_digest[:12]}, "
            f"{bundle.folder} is bundle {bundle.digest.hex()[:12]}; use the bundle they were trained with"
        )
    if metadata.class_names != bundle.manifest.class_names:
        raise HeadError("its class names differ from the bundle's; the file was altered, copy it again")
    if metadata.assurance is not None and len(metadata.assurance.thresholds) != len(metadata.class_names):
        raise HeadError("it has not one threshold for each class; the file was altered, copy it again")


def _check_layout(file: Any, parts: Mapping[str, HeadSpecification]) -> None:
    expected = {
        f"{prefix}.{tensor.name}": tensor.shape
        for prefix, specification in parts.items()
        for tensor in specification.tensors
    }
    names = set(file.keys())
    if names != expected.keys():
        differing = sorted(names ^ expected.keys())[:4]
        raise HeadError(
            f"its arrays are not the method's (missing or unknown: {', '.join(differing)[:200]}); use the "
            "fedmedclip that wrote it, or train anew"
        )
    for name, shape in expected.items():
        part = file.get_slice(name)
        if tuple(part.get_shape()) != shape or part.get_dtype() != "F32":
            raise HeadError(
                f"array {name!r} is {part.get_dtype()} {tuple(part.get_shape())}, expected F32 {shape}"
            )


def _read_head(file: Any, prefix: str, specification: HeadSpecification) -> NamedArrays:
    head = {tensor.name: file.get_tensor(f"{prefix}.{tensor.name}") for tensor in specification.tensors}
    specification.check(head)
    return head

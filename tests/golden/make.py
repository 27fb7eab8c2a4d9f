"""The golden files: what another implementation of `docs/protocol.md` can test itself against.

    python -m tests.golden.make            write them again, after a deliberate change of the protocol
    python -m tests.golden.make --check    decode them, encode them again, compare every byte

`manifest.json` says what each file holds. A compressor promises the same content from every version, not the
same bytes: those are compared only where it has the version that the manifest names.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.protocol import messages
from fedmedclip.protocol.codecs import decode_head
from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from tests.golden.contents import golden_files, readable

FOLDER = Path(__file__).resolve().parent


def stored_files() -> dict[str, bytes]:
    """Return the golden files as they lie in the folder."""
    paths = [*FOLDER.glob("manifest.json"), *FOLDER.glob("*/*.bin"), *FOLDER.glob("*/*.f32")]
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}


def differences() -> list[str]:
    """Return one line for each golden file that this machine reads or writes differently."""
    stored, made = stored_files(), golden_files()
    manifest = json.loads(stored["manifest.json"])
    here = json.loads(made["manifest.json"])
    found = [f"{path}: stored or made, but not both" for path in stored.keys() ^ made.keys()]
    for entry in manifest["heads"]:
        specification = specification_of(entry)
        for how, files in (("read", stored), ("written", made)):
            if head_digest(decode_head(files[entry["file"]], specification)).hex() != entry["head_digest"]:
                found.append(f"{entry['file']}: {how} differently")
    identity = bytes.fromhex(manifest["identity"])
    for entry in manifest["messages"]:
        public_key = bytes.fromhex(manifest["keys"][entry["signer"]]["public"])
        message = open_envelope(stored[entry["file"]], entry["topic"]).verify(public_key, identity)
        if readable(msgspec.msgpack.decode(messages.encode_message(message))) != entry["body"]:
            found.append(f"{entry['file']}: read differently")
    if manifest["zstd"] == here["zstd"] and manifest["full_size"] != here["full_size"]:
        found.append("heads of full size: encoded or decoded differently")
    different = {path for path in stored if stored[path] != made.get(path)}
    return found + [f"{path}: other bytes" for path in sorted(different & comparable(manifest, here))]


def specification_of(entry: dict[str, Any]) -> HeadSpecification:
    """Return the specification that the manifest has of a head: of each array name, shape, marks."""
    return HeadSpecification(
        tuple(
            TensorSpecification(name, tuple(shape), symmetric="symmetric" in marks)
            for name, shape, *marks in entry["specification"]
        )
    )


def comparable(manifest: dict[str, Any], here: dict[str, Any]) -> set[str]:
    """Return the files whose bytes must agree: those of a compressor that has the same version here."""
    paper = {entry["file"] for entry in manifest["heads"] if entry["codec"].startswith("paper")}
    others = {entry["file"] for entry in manifest["heads"] + manifest["messages"]} - paper
    same_zstd, same_zlib = (manifest[library] == here[library] for library in ("zstd", "zlib"))
    return (
        (others if same_zstd else set()) | (paper if same_zlib else set()) | {manifest["version_0"]["file"]}
    )


def write() -> None:
    """Write the golden files; those that are no longer made are removed."""
    for path in stored_files():
        (FOLDER / path).unlink()
    for path, content in golden_files().items():
        (FOLDER / path).parent.mkdir(exist_ok=True)
        (FOLDER / path).write_bytes(content)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        lines = differences()
        print("\n".join(lines) or f"{len(stored_files())} golden files: read and written the same")
        sys.exit(bool(lines))
    write()

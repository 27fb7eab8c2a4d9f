"""Where predictions come from: which bundle, whose heads in which version, which software."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec

from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.visible import visible


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What answers for a prediction. Digests are SHA-256, 64 hexadecimal digits.

    `bundle` is the digest of the bundle, `heads` that of the heads file and `prompts` that of one's own
    `classes.toml`; what there is none of, as heads in zero-shot, is left out. `head_version` is that of the
    federation's shared head. `zero_shot_answers`: their site found zero-shot better than these heads.
    """

    software: str
    bundle: str
    model: str
    precision: str
    heads: str | None = None
    method: str | None = None
    federation: str | None = None
    site: str | None = None
    head_version: int | None = None
    zero_shot_answers: bool = False
    prompts: str | None = None

    def in_words(self) -> str:
        """Return one line for a person."""
        heads = "zero-shot"
        if self.federation is not None:
            site = f", site {self.site}" if self.site else ""
            heads = f"head version {self.head_version} of federation {self.federation}{site}"
        if self.zero_shot_answers:
            heads = f"zero-shot, which {heads} is worse than on its site's validation split"
        return f"{heads}, bundle {self.bundle[:12]}, {self.software}"


def provenance_of(
    bundle: Bundle, heads: Heads | None, heads_file: Path | None, prompts_file: Path | None
) -> Provenance:
    """Return the provenance of what a bundle with these heads, or prompts, predicts.

    Raises OSError when a file is gone meanwhile.
    """
    return Provenance(
        software=f"fedmedclip-edge {version('fedmedclip-edge')}",
        bundle=bundle.digest.hex(),
        model=bundle.manifest.model,
        precision=bundle.manifest.precision,
        heads=None if heads_file is None else file_digest(heads_file),
        method=None if heads is None else heads.method,
        federation=None if heads is None else heads.federation,
        site=None if heads is None else heads.site,
        head_version=None if heads is None else heads.version,
        zero_shot_answers=heads is not None and heads.zero_shot_answers,
        prompts=None if prompts_file is None else file_digest(prompts_file),
    )


def companion_of(output: Path) -> Path:
    """Return the file that says where the predictions in `output` come from."""
    return output.with_name(f"{output.name}.provenance.json")


def write_companion(output: Path, provenance: Provenance, counts: Mapping[str, int]) -> None:
    """Write the companion of a file of predictions that is in place: provenance, digest of the file, counts.

    Raises OSError.
    """
    content = {
        "file": visible(output.name),
        "sha256": file_digest(output),
        **counts,
        "provenance": provenance,
    }
    write_new_file(companion_of(output), msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits. Raises OSError."""
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

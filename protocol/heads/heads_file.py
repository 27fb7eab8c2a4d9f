"""The heads file: a site saves it, a centre gives it to a clinic, `fedmedclip predict` reads it.

A safetensors file: arrays `shared.NAME` and, where the method has a private head and it is included,
`private.NAME`, all float32; and one metadata entry, `fedmedclip`, a JSON object with the fields of
`HeadsMetadata`. A second entry is the signature (`heads_signature`). A file of format 2 says besides how far
the answers are to be relied on, with arrays `assurance.NAME` (`assurance`). With the private head or these in
it, it stays at its site.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from safetensors.numpy import save

from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.heads.assurance import AssuranceMetadata
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.heads_signature import signed_heads
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.signature import SigningKey

FORMAT = 1
FORMAT_WITH_ASSURANCE = 2
METADATA_KEY = "fedmedclip"

Name = Annotated[str, msgspec.Meta(max_length=256)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class EnsembleRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the heads vote: p = (1 - alpha) * p_shared + alpha * p_private.

    `entropy`: per image, alpha = (1/H_private) / (1/H_private + 1/H_shared), H the entropies of the two
    heads' probabilities (FedMedCLIP); `weight` is not used. `calibrated`: alpha = `weight` for every image,
    fitted on validation images. What either gives is in docs/results/fedmedclip-defaults.md.

    Raises InvalidInputError when the weight is not from 0 to 1.
    """

    kind: Literal["entropy", "calibrated"] = "entropy"
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InvalidInputError(f"the ensemble's weight is {self.weight}, it must be from 0 to 1")


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How good a site found heads on its validation split: balanced accuracies, 0 to 1, of `images` images.

    `heads` is that of their ensemble, `zero_shot` that of no heads at all, which answers where it is better.
    """

    images: Annotated[int, msgspec.Meta(ge=1)]
    heads: Share
    zero_shot: Share

    @property
    def zero_shot_answers(self) -> bool:
        """Whether zero-shot is to answer in place of the heads."""
        return self.heads < self.zero_shot


class HeadsMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whose heads a file holds, and of which bundle. `bundle_digest` is 64 hexadecimal digits.

    `site` is empty for a shared head that the centre wrote, which is no site's own. `judgement` is the site's
    of these heads; None where nobody could judge. With `assurance` the format is 2, and 1 without.

    Raises InvalidInputError when the format is another.
    """

    format: int
    method: Name
    federation: Name
    site: Name
    version: Annotated[int, msgspec.Meta(ge=0)]
    bundle_digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    class_names: Annotated[list[Name], msgspec.Meta(max_length=65536)]
    ensemble: EnsembleRule = EnsembleRule()
    judgement: Judgement | None = None
    assurance: AssuranceMetadata | None = None

    def __post_init__(self) -> None:
        if self.format != (FORMAT if self.assurance is None else FORMAT_WITH_ASSURANCE):
            raise InvalidInputError(f"format {self.format} does not fit what the metadata say")


def encoded_heads_file(
    metadata: HeadsMetadata,
    shared: NamedArrays,
    private: NamedArrays | None,
    key: SigningKey | None = None,
    assurance: NamedArrays | None = None,
) -> bytes:
    """Return the content of the file, the same for the same heads.

    With a `key` it is signed (`heads_signature`). `assurance` has the arrays of `metadata.assurance`.
    """
    arrays = {f"shared.{name}": np.ascontiguousarray(array) for name, array in shared.items()}
    for prefix, head in (("private", private), ("assurance", assurance)):
        for name, array in (head or {}).items():
            arrays[f"{prefix}.{name}"] = np.ascontiguousarray(array)
    encoded: bytes = save(arrays, metadata={METADATA_KEY: msgspec.json.encode(metadata).decode()})
    return encoded if key is None else signed_heads(encoded, key)


def write_heads_file(
    path: Path,
    metadata: HeadsMetadata,
    shared: NamedArrays,
    private: NamedArrays | None,
    key: SigningKey | None = None,
) -> None:
    """Write `encoded_heads_file` as `write_encoded_heads` does. Raises HeadError."""
    write_encoded_heads(path, encoded_heads_file(metadata, shared, private, key))


def write_encoded_heads(path: Path, encoded: bytes) -> None:
    """Write the file for its owner only, whole or not at all: an earlier one stays until the new is on disk.

    Raises HeadError when it cannot be written.
    """
    try:
        write_new_file(path, encoded, private=True)
    except OSError as error:
        raise HeadError(f"cannot write heads file {path}: {error.strerror}") from error

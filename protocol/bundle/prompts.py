"""The prompts that stand for classes: read from a `classes.toml`, and averaged to one embedding per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.bundle import ClassPrompts
from fedmedclip.protocol.configuration import convert, read_toml
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import quoted, spelling

DEFAULT_TEMPLATE = "a picture of a {}."

Texts = Annotated[list[str], msgspec.Meta(min_length=1)]


class _Prompts(msgspec.Struct, forbid_unknown_fields=True):
    """A `classes.toml` as it is written."""

    classes: dict[str, Texts]
    templates: Texts = msgspec.field(default_factory=lambda: [DEFAULT_TEMPLATE])


def read_classes_toml(path: Path) -> ClassPrompts:
    """Read a `classes.toml`: `templates` with {}, and a table [classes] of phrases by class.

    Raises InvalidInputError when it cannot be read, or has not at least two classes that make sense.
    """
    where = f"prompts {path}"
    content = read_toml(path, "prompts")
    if "classes" not in content and not content.keys() - {"templates"}:
        raise InvalidInputError(
            f"{where} has no table [classes]; give one line per class folder, "
            'such as: no_tumor = ["no tumor", "no abnormality"]'
        )
    found = convert(content, _Prompts, where)
    if incomplete := [template for template in found.templates if "{}" not in template]:
        raise InvalidInputError(
            f"{where}: template {incomplete[0]!r} has no {{}}, where the phrase of each class goes"
        )
    for name, texts in [("templates", found.templates), *found.classes.items()]:
        if blank := [text for text in texts if not text.strip()]:
            raise InvalidInputError(f"{where}: {name!r} has the blank text {blank[0]!r}; take it out")
    require_distinguishable(found.classes, path)
    return ClassPrompts(templates=found.templates, classes=found.classes)


def prompt_texts(templates: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """Return every template filled with every phrase of a class."""
    return [template.replace("{}", phrase) for template in templates for phrase in phrases]


def prompt_ensemble(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the unit embedding, float32 (D,), of a class from those of its prompts, float32 (prompts, D).

    They are averaged and scaled to unit length again (prompt ensembling, Radford et al. 2021, section 3.1.4).
    """
    mean = embeddings.mean(axis=0, dtype=np.float64)
    ensemble: npt.NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return ensemble


def require_distinguishable(phrases: dict[str, list[str]], path: Path) -> None:
    """Raise InvalidInputError unless there are at least two classes, each with phrases of its own."""
    if len(phrases) < 2:
        raise InvalidInputError(
            f"{path} has {len(phrases)} classes, at least 2 are needed; "
            "give a classes.toml or a folder with one folder per class"
        )
    owners: dict[tuple[str, ...], str] = {}
    spellings: dict[str, str] = {}
    for name, texts in phrases.items():
        if name.startswith(".") or "/" in name or not name.strip() or not name.isprintable():
            raise InvalidInputError(f"{path}: class {name!a} cannot be the name of a folder")
        if name != name.strip():
            raise InvalidInputError(f"{path}: class {name!r} begins or ends with a blank; take it out")
        alike = spellings.setdefault(spelling(name), name)
        if alike != name:
            raise InvalidInputError(
                f"{path}: classes {quoted(alike, name)} and {quoted(name, alike)} are too alike "
                "to tell apart; keep one of them"
            )
        other = owners.setdefault(tuple(sorted(texts)), name)
        if other != name:
            raise InvalidInputError(f"{path}: classes {other!r} and {name!r} have the same phrases {texts}")

"""The prompts that stand for classes: read from a `classes.toml`, and averaged to one embedding per class."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.bundle import ClassPrompts
from fedmedclip.protocol.errors import InvalidInputError

DEFAULT_TEMPLATE = "a picture of a {}."


def read_classes_toml(path: Path) -> ClassPrompts:
    """Read a `classes.toml`: `templates` with {}, and a table [classes] of phrases by class.

    Raises InvalidInputError when it cannot be read, or has not at least two classes that make sense.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(
            f"the prompts {path} cannot be read ({error.strerror}); give a classes.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not valid TOML: {error}") from error
    if unknown := content.keys() - {"templates", "classes"}:
        raise InvalidInputError(
            f"{path} has unknown keys {sorted(unknown)}; it holds `templates` and the table [classes]"
        )
    classes = content.get("classes")
    if not isinstance(classes, dict):
        raise InvalidInputError(
            f"{path} has no table [classes]; give one line per class folder, "
            'such as: no_tumor = ["no tumor", "no abnormality"]'
        )
    templates = _texts(content.get("templates", [DEFAULT_TEMPLATE]), f"{path}: `templates`")
    if incomplete := [template for template in templates if "{}" not in template]:
        raise InvalidInputError(
            f"{path}: template {incomplete[0]!r} has no {{}}, where the phrase of each class goes"
        )
    phrases = {name: _texts(value, f"{path}: class {name!r}") for name, value in classes.items()}
    require_distinguishable(phrases, path)
    return ClassPrompts(templates=templates, classes=phrases)


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


def _texts(value: Any, what: str) -> list[str]:
    """Return `value` if it is a list of texts, none of them blank."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise InvalidInputError(f"{what} is {value!r}; give a list of texts, none of them blank")
    return value


def require_distinguishable(phrases: dict[str, list[str]], path: Path) -> None:
    """Raise InvalidInputError unless there are at least two classes, each with phrases of its own."""
    if len(phrases) < 2:
        raise InvalidInputError(
            f"{path} has {len(phrases)} classes, at least 2 are needed; "
            "give a classes.toml or a folder with one folder per class"
        )
    owners: dict[tuple[str, ...], str] = {}
    for name, texts in phrases.items():
        if name.startswith(".") or "/" in name or not name.strip():
            raise InvalidInputError(f"{path}: class {name!r} cannot be the name of a folder")
        other = owners.setdefault(tuple(sorted(texts)), name)
        if other != name:
            raise InvalidInputError(f"{path}: classes {other!r} and {name!r} have the same phrases {texts}")

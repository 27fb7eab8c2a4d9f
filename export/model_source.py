"""What a model's name and `--pretrained` mean: which of open_clip's models, with which weights."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.visible import visible

LOCAL_PREFIX = "local-dir:"
HUB_PREFIX = "hf-hub:"


@dataclass(frozen=True)
class ModelSource:
    """Where open_clip finds a model, and what a bundle says of it: no folders of this machine.

    `name` and `pretrained` are open_clip's arguments, `preprocessing` what to tell it about the images;
    `shown_name` and `shown_pretrained` go into the bundle.
    """

    name: str
    pretrained: str | None
    shown_name: str
    shown_pretrained: str
    preprocessing: dict[str, Any] = field(default_factory=dict)


def find_source(model: str, pretrained: str | None) -> ModelSource:
    """Find out what a person means by a model's name and `--pretrained`. open_clip must be importable.

    Raises InvalidInputError with near names when the name or the tag is unknown, when weights are missing or
    superfluous, and when they were trained with another activation (QuickGELU) than the model has.
    """
    if not model.startswith((LOCAL_PREFIX, HUB_PREFIX)):
        return _registered(model, pretrained)
    if pretrained:
        raise InvalidInputError(
            f"{model} brings its own weights; leave out --pretrained, which is {pretrained!r}"
        )
    if model.startswith(HUB_PREFIX):
        return ModelSource(model, None, model, "")
    folder = Path(model.removeprefix(LOCAL_PREFIX)).expanduser()
    if not (folder / "open_clip_config.json").is_file():
        raise InvalidInputError(
            f"no open_clip_config.json in {folder}; "
            f"{LOCAL_PREFIX}PATH takes a folder with that file and the weights"
        )
    return ModelSource(f"{LOCAL_PREFIX}{folder}", None, visible(f"{LOCAL_PREFIX}{folder.resolve().name}"), "")


def _registered(model: str, pretrained: str | None) -> ModelSource:
    """Find a model that open_clip knows by name."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    name = model.replace("/", "-")
    names = open_clip.list_models()
    if name not in names:
        raise InvalidInputError(
            f"open_clip has no model {model!r}; {_near(name, names)}"
            f"or give {LOCAL_PREFIX}PATH or {HUB_PREFIX}OWNER/NAME"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise InvalidInputError(
            f"model {name} needs --pretrained: the path of a file with weights"
            + (f", or one of its tags: {', '.join(tags)}" if tags else "; it has no published weights")
        )
    if get_pretrained_cfg(name, pretrained):
        _require_same_activation(name, pretrained)
        return ModelSource(name, pretrained, name, pretrained)
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise InvalidInputError(
            f"model {name} has no tag {pretrained!r}, nor is there a file of that name"
            + (f"; {_near(pretrained, tags).removesuffix('; ')}" if tags else "")
        )
    return ModelSource(name, str(path), name, visible(path.name), agreed_preprocessing(name))


def agreed_preprocessing(name: str) -> dict[str, Any]:
    """Return what all published weights of a model say about its images. open_clip must be importable.

    For weights from a file, open_clip assumes its default, which is wrong for a SigLIP, say.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    published = [get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {
        key: published[0][key]
        for key in keys
        if published and all(other[key] == published[0][key] for other in published)
    }


def _require_same_activation(name: str, tag: str) -> None:
    """Raise InvalidInputError when weights and model differ in QuickGELU: embeddings would be subtly off."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    trained_with = get_pretrained_cfg(name, tag).get("quick_gelu", False)
    if open_clip.get_model_config(name).get("quick_gelu", False) == trained_with:
        return
    other = f"{name}-quickgelu" if trained_with else name.removesuffix("-quickgelu")
    advice = f"use --model {other}" if other != name and get_pretrained_cfg(other, tag) else "use another tag"
    raise InvalidInputError(
        f"the weights {tag!r} were trained {'with' if trained_with else 'without'} QuickGELU, "
        f"unlike model {name}; {advice}"
    )


def _near(wanted: str, names: Iterable[str]) -> str:
    by_lower_case = {name.lower(): name for name in names}
    matches = difflib.get_close_matches(wanted.lower(), by_lower_case, n=4, cutoff=0.5)
    near = [by_lower_case[match] for match in matches]
    if near:
        return f"near names: {', '.join(near)}; "
    return f"it knows: {', '.join(by_lower_case.values())}; " if len(by_lower_case) <= 12 else ""

"""What open_clip has to offer: `fedmedclip export --list`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedclip.export.quiet import quiet
from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.protocol.errors import InvalidInputError

# Parameters by name, both towers together.
PARAMETERS = Path(__file__).with_name("parameters.json")


@dataclass(frozen=True)
class Architecture:
    """One of open_clip's models. Sizes in pixels; `parameters` is None when it was never counted."""

    name: str
    embedding_size: int
    image_height: int
    image_width: int
    parameters: int | None
    licence: str
    tags: tuple[str, ...]


def architectures() -> list[Architecture]:
    """Return what open_clip lists, in its order. Builds no model.

    Raises InvalidInputError when open_clip is not installed.
    """
    with quiet():
        declare_missing_operators()
        try:
            import open_clip
        except ImportError as error:
            raise InvalidInputError(
                f"export needs open_clip ({error}); pip install 'fedmedclip-edge[export]'"
            ) from error
    counted = counted_parameters()
    return [
        _architecture(
            name,
            open_clip.get_model_config(name),
            counted.get(name),
            tuple(open_clip.list_pretrained_tags_by_model(name)),
        )
        for name in open_clip.list_models()
    ]


def counted_parameters() -> dict[str, int]:
    """Return the number of parameters of each model that was counted, by name."""
    found: dict[str, int] = json.loads(PARAMETERS.read_text(encoding="utf-8"))
    return found


def _architecture(
    name: str, configuration: dict[str, Any], parameters: int | None, tags: tuple[str, ...]
) -> Architecture:
    size = configuration["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    return Architecture(
        name, configuration["embed_dim"], height, width, parameters, _licence(name, tags), tags
    )


def _licence(name: str, tags: tuple[str, ...]) -> str:
    """Return what open_clip says of the licence of a model's published weights, or who says it.

    Its records have room for a licence, but 3.3.0 fills in none; then the model cards of those who publish
    the weights say it.
    """
    from open_clip.pretrained import get_pretrained_cfg

    records = [get_pretrained_cfg(name, tag) for tag in tags]
    if notes := sorted({str(record["license"]) for record in records if record.get("license")}):
        return ", ".join(notes)
    owners = sorted({record["hf_hub"].partition("/")[0] for record in records if record.get("hf_hub")})
    return f"see the card by {', '.join(owners)}" if owners else "not known"

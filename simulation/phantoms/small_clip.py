"""Where the demo's small CLIP lies, which an installation need not have."""

from importlib.util import find_spec
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError

_PACKAGE = "fedmedclip_phantom_clip"
# Beside the rooms, where this is imported from the source tree.
_IN_SOURCE_TREE = Path(__file__).parents[2] / "phantom_clip" / _PACKAGE


def small_clip(instead: str) -> str:
    """Return the model's name for `fedmedclip export --model`, from the source tree or as installed.

    Raises InvalidInputError when it is nowhere; `instead` names the options that do without it.
    """
    if _IN_SOURCE_TREE.is_dir():
        return f"local-dir:{_IN_SOURCE_TREE}"
    installed = find_spec(_PACKAGE)
    if installed is None or installed.origin is None:
        raise InvalidInputError(
            "the demo's small CLIP is not installed; "
            f"install it from the source tree with: pip install ./phantom_clip, or give {instead}"
        )
    return f"local-dir:{Path(installed.origin).parent}"

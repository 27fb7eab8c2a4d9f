"""Where the small CLIP lies: `local-dir:` and this folder is a model's name for open_clip."""

from pathlib import Path

FOLDER = Path(__file__).parent

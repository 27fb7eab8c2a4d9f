"""Bundles for measurements of speed, which does not depend on weights: made once, kept in a folder."""

import subprocess
import sys
from pathlib import Path

from fedmedclip.simulation.phantoms.small_clip import small_clip

ROOT = Path(__file__).resolve().parents[2]
SMALL_CLIP = "phantom-clip"
_CLASSES = 'templates = ["a scan with {}."]\n[classes]\ntumour = ["a tumour"]\nhealthy = ["no tumour"]\n'


def random_bundle(model: str, precision: str, work: Path) -> Path:
    """Return the bundle of `phantom-clip`, the repository's small CLIP, or of open_clip's ViT-B-32."""
    folder: Path = work / f"{model}-{precision}"
    if not folder.exists():
        classes = work / "classes.toml"
        classes.write_text(_CLASSES)
        source = ["--model", small_clip("another model")]
        if model != SMALL_CLIP:
            source = ["--model", model, "--pretrained", str(random_weights(work))]
        arguments = [*source, "--classes", str(classes), "--precision", precision, "--out", str(folder)]
        command = [sys.executable, "-m", "fedmedclip", "export", *arguments]
        # What a benchmark prints last is its result.
        subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    return folder


def random_weights(work: Path) -> Path:
    """Save random weights of a ViT-B/32 once."""
    path = work / "vit-b-32.safetensors"
    if not path.exists():
        from fedmedclip.export.torchvision_operators import declare_missing_operators

        declare_missing_operators()
        import open_clip
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        network = open_clip.create_model("ViT-B-32", pretrained=None)
        save_file({name: array.contiguous() for name, array in network.state_dict().items()}, path)
    return path

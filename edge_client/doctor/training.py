"""PyTorch, which a site needs to train: whether it is there, and whether it is larger than need be."""

from importlib.util import find_spec
from pathlib import Path

from fedmedclip.edge_client.doctor.finding import Finding, bad, good, note

_SMALL = "pytorch.org/get-started, choice CPU, has the command for the small build"


def training(torch: Path | None, devices: Path = Path("/dev")) -> Finding:
    """Judge the folder of PyTorch, None when there is none: a build for graphics cards needs one of them.

    Heads train on the processor, so such a build is of no use to a site; other programs may want it.
    """
    if torch is None:
        return bad(
            "training",
            "PyTorch is missing",
            "pip install 'fedmedclip-edge[train]' to take part: about 6 GB on Linux, or 1 GB when PyTorch's "
            f"build for processors alone is installed before; {_SMALL}",
        )
    # The card's devices are named so on Linux, and dxg where Linux runs inside Windows.
    has_card = any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()
    if any(torch.glob("lib/libtorch_cuda.so")) and not has_card:
        words = "PyTorch is installed, but as the build for graphics cards, and this machine has none"
        return note("training", words, f"about 5 GB can be saved; {_SMALL}")
    return good("training", "PyTorch is installed")


def folder_of(package: str) -> Path | None:
    """Return where an installed package lies, without importing it; None when it is not installed."""
    try:
        found = find_spec(package)
    except ValueError:  # somebody keeps it from being imported
        return None
    return None if found is None or found.origin is None else Path(found.origin).parent

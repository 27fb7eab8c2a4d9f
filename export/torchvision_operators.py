"""Make torchvision importable where its compiled operators cannot be loaded.

torchvision describes its `nms` and `qnms` operators to PyTorch while it is imported. When its compiled
library does not fit the installed PyTorch (a CPU build of torch beside a CUDA build of torchvision, say),
those operators do not exist and the import fails, although open_clip only needs the image transforms, which
are pure Python. Declaring the two schemas beforehand lets the import succeed; calling the operators still
fails.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

OPERATORS = ("torchvision::nms", "torchvision::qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_missing_operators() -> None:
    """Declare torchvision's operators if its compiled library cannot be loaded; otherwise do nothing.

    Call this before the first import of torchvision or open_clip. It may be called any number of times.
    """
    if "torchvision" in sys.modules:
        return
    specification = importlib.util.find_spec("torchvision")
    if specification is None or specification.origin is None:
        return
    if _library_loads(Path(specification.origin).parent):
        return
    import torch

    for operator in OPERATORS:
        if not hasattr(torch.ops.torchvision, operator.partition("::")[2]):
            torch.library.define(operator, SCHEMA)


def _library_loads(package: Path) -> bool:
    """Whether torchvision's compiled library exists in its package and fits this PyTorch."""
    import torch

    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = package / f"_C{suffix}"
        if library.is_file():
            try:
                torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return True
    return False

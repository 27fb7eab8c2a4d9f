"""open_clip can be imported, whether or not torchvision's library fits torch."""

import subprocess
import sys

import pytest

from tests import ROOT


@pytest.mark.slow
def test_open_clip_imports_after_the_declaration() -> None:
    code = (
        "from fedmedclip.export.torchvision_operators import declare_missing_operators as declare\n"
        "declare(); declare()\n"
        "import open_clip\n"
        "declare()\n"
        "assert open_clip.list_models()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)

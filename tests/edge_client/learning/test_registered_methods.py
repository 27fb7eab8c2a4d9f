"""The methods by name, as whoever has no PyTorch sees them: the aggregator, and a device that classifies."""

import subprocess
import sys

import pytest

from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import known_methods
from tests import ROOT

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from fedmedclip.edge_client.heads.heads import initial_private_head, predict_probabilities
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.method import ClosedFormMethod
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, known_methods

rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
for method in known_methods():
    shared, private = initial_shared_head(method, 16, 1, 3), initial_private_head(method, 16, 3, 1, "a")
    if isinstance(site_method(method), ClosedFormMethod):
        shared, private, _ = site_method(method).fit(shared, rows, np.arange(12) % 3, rows[:3], 10.0, 1)
    found = predict_probabilities(method, shared, private, rows, rows[:3], 10.0).ensemble
    assert found.shape == (12, 3) and np.isfinite(found).all()
    print(method)
"""
OF_THE_AGGREGATOR = """
import sys
sys.modules["torch"] = None
from fedmedclip.aggregator.service import run_aggregator
from fedmedclip.protocol.heads.shared_heads import known_methods, shared_head_specification
for method in known_methods():
    assert shared_head_specification(method, 16, 3).size
    print(method)
"""


@pytest.mark.parametrize("program", [WITHOUT_TORCH, OF_THE_AGGREGATOR], ids=["a device", "the aggregator"])
def test_every_method_is_readable_where_there_is_no_torch(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == known_methods()


def test_a_name_of_ours_imports_one_method_and_looks_at_no_entry_point():
    program = """
import sys
from fedmedclip.edge_client.heads.heads import private_head_specification
from importlib import metadata
def scanned(**_): raise AssertionError("entry points were looked at")
metadata.distributions = scanned
private_head_specification("fedclip", 16, 3)
folder = "fedmedclip.edge_client.learning.methods."
print(*(name.removeprefix(folder) for name in sys.modules if name.startswith(folder)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fedclip"]


def test_every_file_of_a_method_is_registered():
    files = {path.stem for path in (ROOT / "edge_client/learning/methods").glob("*.py")} - {"__init__"}
    assert {method.replace("-", "_") for method in known_methods()} == files


@pytest.mark.parametrize("method", known_methods())
def test_a_method_goes_by_the_name_that_it_is_registered_under(method):
    assert site_method(method).name == method


@pytest.mark.parametrize("method", known_methods())
def test_a_method_says_on_which_data_its_constants_were_chosen(method):
    """All trained ones share default settings that were chosen on the brain MRI."""
    assert "brain_tumor" in site_method(method).constants_chosen_on


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(InvalidInputError, match=r"'fedmagic'.*known: .*fedmedclip"):
        site_method("fedmagic")

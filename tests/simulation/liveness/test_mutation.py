"""The faults that are put into the code to try its tests, and that they are put into a copy."""

import ast
import json
import subprocess
import sys

import pytest

from benchmarks.liveness.mutants import drawn, mutants_of
from benchmarks.liveness.mutation import MODULES, mirrors_of
from tests import ROOT

SOURCE = '''"""Minus 1 - this is not touched."""

LIMIT = 1 << 20
LEAST = -1
log = None


def largest(values, limit: int = LIMIT):
    """Return what is 1 + 1."""
    assert limit > 0
    if not values or (
        limit < 5
    ):
        log.info("%d values", len(values) + 1)
        return None
    values.sort()
    return f"ü{limit + 1}" + values[-1]
'''


def changes(source):
    return {(mutant.line, mutant.before, mutant.after) for mutant in mutants_of("a.py", source)}


def test_every_fault_of_a_small_module():
    condition = "not values or limit < 5"
    assert changes(SOURCE) == {
        (11, condition, "not values and limit < 5"),
        (11, condition, f"not ({condition})"),
        (12, "limit < 5", "limit >= 5"),
        (12, "limit < 5", "limit <= 5"),
        (12, "5", "6"),
        (15, "return None", "pass"),
        (16, "values.sort()", "pass"),
        (17, "f'ü{limit + 1}' + values[-1]", "f'ü{limit + 1}' - values[-1]"),
        (17, "1", "2"),
    }


@pytest.mark.parametrize("module", ["aggregator/uploads.py", "protocol/envelope.py"])
def test_a_mutant_is_its_module_with_one_line_changed(module):
    source = (ROOT / module).read_text()
    mutants = mutants_of(module, source)
    assert len(mutants) > 20
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(source))
        before, after = source.splitlines(), mutant.source.splitlines()
        assert before[: mutant.line - 1] == after[: mutant.line - 1]
        if "dropped" not in mutant.kind:
            assert len(before) == len(after)


def test_the_same_seed_draws_the_same_and_another_seed_others():
    mutants = mutants_of("store.py", (ROOT / "aggregator" / "store.py").read_text())
    assert drawn(mutants, 10, 1) == drawn(mutants, 10, 1) != drawn(mutants, 10, 2)
    assert len(set(map(str, drawn(mutants, 10, 1)))) == 10
    assert drawn(mutants, 10_000, 1) == mutants


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_tests_that_are_run(module):
    for tests in mirrors_of(module, near=False):
        assert tests
        assert all((ROOT / path).exists() for path in tests)


@pytest.mark.slow
def test_a_fault_is_noticed_and_the_tree_stays_as_it_is():
    module = ROOT / "aggregator" / "requests.py"
    before = module.read_bytes()
    command = [sys.executable, "-m", "benchmarks.liveness.mutation", "aggregator/requests.py", "--near"]
    done = subprocess.run([*command, "--mutants", "1"], cwd=ROOT, capture_output=True, text=True, check=False)
    *_, told, last = done.stdout.splitlines()
    assert "killed by tests/aggregator/test_requests.py::" in told, done.stdout + done.stderr
    assert json.loads(last) == {"mutants": 1, "killed": 1, "survived": []}
    assert done.returncode == 0
    assert module.read_bytes() == before

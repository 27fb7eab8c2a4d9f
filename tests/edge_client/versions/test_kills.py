"""A kill at any moment leaves what was, or what was to be; and the next look makes it whole."""

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.errors import InvalidInputError
from tests import ROOT
from tests.edge_client.versions.version_examples import check, content, keep, record


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """What a process wrote outlives it, on the disk or not."""
    with patch.object(os, "fsync", lambda descriptor: None):
        yield


class Killed(BaseException):
    """Nobody catches it."""


@contextlib.contextmanager
def killed_at(step):
    """Ends at the file operation with this number, before it or after it as the number has it."""
    left = [step]

    def counted(operation):
        def run(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            found = operation(*arguments, **options)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return found

        return run

    names = ("replace", "fsync", "open")
    patches = [patch.object(os, name, counted(getattr(os, name))) for name in names]
    # A process that is killed clears nothing away.
    patches.append(patch.object(Path, "unlink", lambda path, missing_ok=False: None))
    with contextlib.ExitStack() as stack:
        for patched in patches:
            stack.enter_context(patched)
        with contextlib.suppress(Killed):
            yield


def add(versions, version, active):
    with versions.held() as held:
        found = held.put(record(version), content(version))
        if active:
            held.activate(found)
        held.catalogue.prune(2)


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "aside", "activate", "rollback"]), st.integers(1, 40)),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_after_a_kill_at_any_file_operation_all_fits_together(steps):
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        versions, newest = keep(state, 1, 2), 2
        for action, step in steps:
            before = check(state)
            kept = {found.version for found in versions.listing()}
            newest += 1
            with killed_at(step), contextlib.suppress(InvalidInputError):
                if action == "rollback":
                    versions.rollback("x")
                elif action == "activate":
                    versions.activate(str(min(kept)), "x")
                else:
                    add(versions, newest, action == "add")
            after = check(state)
            assert after in kept | {newest}
            if action == "aside":
                assert after == before


def test_each_file_operation_of_a_new_version_was_tried(tmp_path):
    """The same without chance: the first version, and one that takes another's place."""
    for first in (True, False):
        outcomes = []
        for step in itertools.count(1):
            state = tmp_path / f"{first}-{step}"
            state.mkdir()
            if not first:
                keep(state, 1)
            is_done = False
            with killed_at(step):
                add(Versions(state), 2, True)
                is_done = True
            outcomes.append(check(state) if (state / "versions").exists() else None)
            if is_done:
                break
        assert len(outcomes) > 20
        assert outcomes[0] == (None if first else 1)
        assert outcomes[-1] == 2
        assert outcomes == sorted(outcomes, key=lambda found: found == 2)


LOOP = """
import itertools, pathlib, sys
from fedmedclip.edge_client.versions.versions import Versions
from tests.edge_client.versions.version_examples import content, record
versions, contents = Versions(pathlib.Path(sys.argv[1])), [content(version) for version in range(5)]
print("begun", flush=True)
for number in itertools.count():
    with versions.held() as held:
        held.activate(held.put(record(number % 5), contents[number % 5]))
        held.catalogue.prune(3)
"""


def killed_by_signal(state, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(state)], stdout=subprocess.PIPE, cwd=ROOT, env=os.environ
    )
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    process.wait()
    process.stdout.close()
    return check(state)


def test_a_real_kill_leaves_versions_whole(tmp_path):
    keep(tmp_path, 1)
    assert killed_by_signal(tmp_path, 0.05) is not None


@pytest.mark.slow
def test_thirty_real_kills_leave_versions_whole(tmp_path):
    keep(tmp_path, 1)
    for number in range(30):
        assert killed_by_signal(tmp_path, 0.01 + 0.0037 * number) is not None

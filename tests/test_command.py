"""The command as a shell starts it: by its name or as a module, with completion, and quick to answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedmedclip import __version__
from tests.test_rooms import HEAVY

ENTRY = Path(sys.executable).parent / "fedmedclip"


def run(*command, **environment):
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("argument", "code", "words"),
    [("--version", 0, f"fedmedclip {__version__}\n"), ("predic", 2, "did you mean 'predict'?")],
)
def test_by_name_and_as_a_module_it_says_the_same(argument, code, words):
    named, module = run(ENTRY, argument), run(sys.executable, "-m", "fedmedclip", argument)
    assert (named.returncode, named.stdout, named.stderr) == (code, module.stdout, module.stderr)
    assert words in named.stdout + named.stderr


def test_bash_completes_commands_options_and_choices():
    script = """
    eval "$(fedmedclip --show-completion bash)"
    complete_words() {
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        _fedmedclip_completion fedmedclip
        echo "${COMPREPLY[*]}"
    }
    complete_words fedmedclip pre
    complete_words fedmedclip predict --f
    complete_words fedmedclip predict --format j
    """
    done = run("bash", "-c", script, PATH=f"{ENTRY.parent}{os.pathsep}{os.environ['PATH']}")
    assert done.stdout.splitlines() == ["predict", "--format --frames", "jsonl"], done.stderr


def test_completion_imports_nothing_heavy():
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from fedmedclip.command import main\n"
        "main()\n"
    )
    asked = {"_FEDMEDCLIP_COMPLETE": "complete_bash", "COMP_WORDS": "fedmedclip eva", "COMP_CWORD": "1"}
    done = run(sys.executable, "-c", code, **asked)
    assert done.stdout.split() == ["evaluate"]
    assert not {*done.stderr.split()} & {*HEAVY, "numpy"}

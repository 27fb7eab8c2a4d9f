"""Who may import whom, and what each weight of installation must not need."""

import ast
import subprocess
import sys

import pytest

from tests import ROOT

ROOMS = {"aggregator", "edge_client", "export", "protocol", "simulation"}
MAY_IMPORT = {
    "protocol": set(),
    "export": {"protocol"},
    "edge_client": {"protocol"},
    "aggregator": {"protocol"},
    "simulation": ROOMS,
}
# What the base installation brings; everything else is an extra.
PROTOCOL_LIBRARIES = {"numpy", "zstandard", "msgspec", "cryptography", "paho"}
BASE_LIBRARIES = PROTOCOL_LIBRARIES | {"onnxruntime", "PIL", "typer", "rich", "safetensors"}
MAY_USE_TORCH = {"edge_client/learning/training.py", "edge_client/learning/methods"}


def imported_modules(path):
    """Yield (room or top-level name, whether it runs at run time) of every import in a file."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names = [node.module]
        for name in names:
            yield name.removeprefix("fedmedclip.").split(".")[0], id(node) not in typing_only


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_the_rooms_it_may(room):
    for path in (ROOT / room).rglob("*.py"):
        ours = {name for name, _ in imported_modules(path)} & ROOMS - {room}
        assert ours <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[room]}"


@pytest.mark.parametrize("room", ["protocol", "aggregator", "edge_client"])
def test_torch_and_extras_stay_where_they_belong(room):
    allowed = PROTOCOL_LIBRARIES if room == "protocol" else BASE_LIBRARIES
    for path in (ROOT / room).rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        extras = {"torch"} if relative.startswith(tuple(MAY_USE_TORCH)) else set()
        if relative == "edge_client/heads/metrics.py":
            extras = {"sklearn"}
        if relative.startswith("edge_client/inference/deployment/"):
            extras = {"onnx"}
        if relative.startswith("edge_client/images/readers/dicom"):
            extras = {"pydicom"}
        if relative == "edge_client/features/text_encoder.py":
            extras = {"ftfy", "tokenizers"}
        used = {name for name, at_run_time in imported_modules(path) if at_run_time}
        unknown = used - set(sys.stdlib_module_names) - ROOMS - allowed - extras
        assert not unknown, f"{relative} needs {unknown}"


def modules_after(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['fedmedclip', *{arguments!r}]\n"
        "from fedmedclip.command import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


COMMANDS = [
    "aggregator",
    "bench",
    "bundle",
    "demo",
    "deploy",
    "doctor",
    "evaluate",
    "export",
    "init",
    "predict",
    "site",
    "",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    modules = modules_after([command, "--help"] if command else ["--help"])
    assert "typer" in modules
    assert not modules & {
        "torch",
        "open_clip",
        "onnx",
        "onnxruntime",
        "sklearn",
        "paho",
        "amqtt",
        "PIL",
        "pydicom",
    }

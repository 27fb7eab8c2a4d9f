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
PROTOCOL_LIBRARIES = {"numpy", "zstandard", "msgspec", "cryptography", "paho", "safetensors"}
BASE_LIBRARIES = PROTOCOL_LIBRARIES | {"onnxruntime", "PIL", "typer", "rich"}
HEAVY = {
    "torch",
    "open_clip",
    "onnx",
    "onnxruntime",
    "sklearn",
    "paho",
    "amqtt",
    "PIL",
    "pydicom",
    "pydantic",
}
LEARNING = "edge_client/learning"
MAY_USE_TORCH = {
    f"{LEARNING}/{name}.py"
    for name in ("layers", "losses", "masked_linear", "optimizers", "private_gradients", "settled_norms")
}
MAY_USE_TORCH |= {f"{LEARNING}/private_round.py", f"{LEARNING}/training.py", f"{LEARNING}/methods"}


# The rooms inside the large rooms, floor by floor: each may import those below it, never beside or above it.
# A large room's own files are its ground floor, or are where "." stands; what is in ROOF may import all.
FLOORS = {
    "aggregator": ["authority rules", ".", "enrolment page"],
    "protocol": [
        "configuration",
        "bundle heads link roster web",
        "codecs enrolment pages secure_aggregation trust",
    ],
    "simulation": ["phantoms processes", "federation", "accuracy bandwidth demo robustness", "newcomer"],
    "edge_client": [
        "heads images",
        "privacy",
        "features learning",
        "adaptation bundles calibration data_report inference",
        "explanation versions",
        "ledger page serving",
        "site",
        "doctor",
        "enrolment",
    ],
}
# What puts the parts of a large room together.
ROOF = {f"{large}/cli.py" for large in FLOORS} | {"aggregator/service.py", "aggregator/loop.py"}


def imported_modules(path):
    """Yield (dotted name, whether the import runs at run time) of every module that a file imports."""
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
            # What is imported from a package may be a module in it.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) not in typing_only


def top_level(name):
    """Return the large room of ours that a module is in, or the library that it belongs to."""
    return name.removeprefix("fedmedclip.").split(".")[0]


def room_inside(path_or_name):
    """Return the room inside a large room that a file or module is in; None on the ground floor."""
    parts = path_or_name.removeprefix("fedmedclip.").replace("/", ".").split(".")
    return parts[1] if (ROOT / parts[0] / parts[1]).is_dir() else None


@pytest.mark.parametrize("large", sorted(FLOORS))
def test_rooms_inside_a_large_room_import_only_downwards(large):
    level = {room: floor for floor, rooms in enumerate(FLOORS[large], start=1) for room in rooms.split()}
    level[None] = level.pop(".", 0)
    folders = {path.parent.name for path in (ROOT / large).glob("*/__init__.py")}
    assert folders == set(level) - {None}, "each room has its place in FLOORS, and a docstring"
    for path in (ROOT / large).rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        mine = room_inside(relative)
        if relative in ROOF:
            continue
        for name, _ in imported_modules(path):
            if top_level(name) == large and (other := room_inside(name)) != mine:
                assert level[other] < level[mine], f"{relative} imports {name}, which is not below it"


def test_every_room_says_in_one_line_what_it_is():
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("__init__.py")):
        first, *rest = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
        assert first.endswith((".", "?")), f"{path} has no sentence that says what the room is"
        assert not rest or not rest[0], f"{path}: its first sentence goes over more than one line"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_the_rooms_it_may(room):
    for path in (ROOT / room).rglob("*.py"):
        ours = {top_level(name) for name, _ in imported_modules(path) if name.startswith("fedmedclip.")}
        ours &= ROOMS - {room}
        assert ours <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[room]}"


@pytest.mark.parametrize("room", ["protocol", "aggregator", "edge_client"])
def test_torch_and_extras_stay_where_they_belong(room):
    allowed = PROTOCOL_LIBRARIES if room == "protocol" else BASE_LIBRARIES
    for path in (ROOT / room).rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        extras = {"torch"} if relative.startswith(tuple(MAY_USE_TORCH)) else set()
        if relative.startswith("edge_client/inference/deployment/"):
            extras = {"onnx"}
        if relative.startswith("edge_client/images/readers/dicom"):
            extras = {"pydicom"}
        if relative == "edge_client/serving/folder/events.py":
            extras = {"watchfiles"}
        if relative == "edge_client/privacy/accounting.py":
            extras = {"dp_accounting"}
        if relative == "protocol/exposition.py":
            extras = {"prometheus_client"}
        if relative.startswith(("edge_client/serving/http/", "protocol/web/", "protocol/pages/")):
            extras = {"h11", "prometheus_client", "starlette", "uvicorn"}
        if relative.startswith(("aggregator/page/", "edge_client/page/")):
            extras = {"starlette"}
        if relative.startswith("edge_client/serving/dicom/"):
            extras = {"highdicom", "pydicom", "pynetdicom"}
        if relative == "edge_client/features/text_encoder.py":
            extras = {"ftfy", "tokenizers"}
        used = {top_level(name) for name, at_run_time in imported_modules(path) if at_run_time}
        unknown = used - set(sys.stdlib_module_names) - ROOMS - allowed - extras
        assert not unknown, f"{relative} needs {unknown}"


METHODS = sorted((ROOT / LEARNING / "methods").glob("*.py"))


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_imports_torch_only_when_it_trains(path):
    """Not even through our own modules: the aggregator and a clinic's device read the file too."""
    at_once = ast.Module([node for node in ast.parse(path.read_text()).body if not is_lazy(node)], [])
    train = {f"fedmedclip.{name.removesuffix('.py').replace('/', '.')}" for name in MAY_USE_TORCH}
    train -= {"fedmedclip.edge_client.learning.methods"}
    for node in ast.walk(at_once):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not {name for name in names if name.split(".")[0] == "torch" or name in train}


def is_lazy(node):
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef) or typing_only


def modules_after(arguments):
    return printed_and_modules_after(arguments)[1]


def printed_and_modules_after(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['fedmedclip', *{arguments!r}]\n"
        "from fedmedclip.command import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout, set(done.stderr.split())


COMMANDS = [
    "adapt",
    "aggregator",
    "bench",
    "bundle",
    "calibrate",
    "data",
    "demo",
    "deploy",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "init",
    "predict",
    "site",
    "",
]


def test_completing_imports_nothing_heavy(monkeypatch):
    typed = {"COMP_WORDS": "fedmedclip predict --prov", "COMP_CWORD": "2"}
    for name, value in {"_FEDMEDCLIP_COMPLETE": "complete_bash", **typed}.items():
        monkeypatch.setenv(name, value)
    printed, modules = printed_and_modules_after([])
    assert printed.split() == ["--provenance", "--provider"]
    assert not modules & HEAVY


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    modules = modules_after([command, "--help"] if command else ["--help"])
    assert "typer" in modules
    assert not modules & HEAVY

"""`fedmedclip export` as a person calls it."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedmedclip.command import main
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.bundle.signature import signer
from fedmedclip.protocol.signature import load_signing_key
from fedmedclip.protocol.trust.pins import own_key, pins

CLASSES = 'templates = ["a {}."]\n[classes]\nwell = ["nothing"]\nill = ["a tumor"]\n'


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.toml"
    path.write_text(CLASSES)
    return path


def export_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["fedmedclip", "export", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_export_writes_a_bundle_and_says_what_it_is(
    tiny_model: str,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "deep" / "bundle"
    code = export_with(
        monkeypatch,
        "--model",
        tiny_model,
        "--classes",
        str(classes),
        "--out",
        str(out),
        "--precision",
        "int8",
    )
    captured = capfd.readouterr()
    assert code == 0
    # A machine that is busy with other things takes longer than 30 s, and says so.
    assert [line for line in captured.err.splitlines() if not line.endswith(" so far")] == []
    assert open_bundle(out).digest.hex() in captured.out
    assert "int8 (8-bit: 8 MatMul)" in captured.out
    assert "well, ill" in captured.out
    assert signer(out) == own_key().public_key
    assert f"signed   {own_key().public_key.hex()}" in captured.out


@pytest.mark.parametrize(
    ("model", "pretrained", "text", "complaint"),
    [
        ("ViT-B-33", "openai", CLASSES, "near names"),
        ("ViT-B-32", "opnai", CLASSES, "near names: openai"),
        ("ViT-B-32", "openai", CLASSES, "QuickGELU"),
        ("local-dir:nowhere", None, CLASSES, "open_clip_config.json"),
        ("ViT-B-32", "openai", "[classes]", "at least 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    model: str,
    pretrained: str | None,
    text: str,
    complaint: str,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    classes.write_text(text)
    tag = ["--pretrained", pretrained] if pretrained else []
    code = export_with(
        monkeypatch, "--model", model, *tag, "--classes", str(classes), "--out", str(tmp_path / "bundle")
    )
    captured = capfd.readouterr()
    assert code == 2
    assert captured.out == ""
    assert complaint in captured.err
    assert captured.err.startswith("fedmedclip: ")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "bundle").exists()


def test_list_shows_every_architecture_and_needs_no_other_option(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert export_with(monkeypatch, "--list") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "embedding", "image", "M", "parameters", "weights", "licence"]
    names = [line.split()[0] for line in lines[1:]]
    assert {"RN50", "ViT-B-32", "ViT-B-16-SigLIP2", "coca_ViT-B-32", "MobileCLIP2-S0"} <= set(names)


def test_options_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert export_with(monkeypatch, "--model", "ViT-B-32") == 2
    assert "missing --classes, --out" in capfd.readouterr().err


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_of_something_else_is_never_replaced(
    force: list[str],
    tiny_model: str,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    arguments = ["--model", tiny_model, "--classes", str(classes), "--out", str(precious), *force]
    assert export_with(monkeypatch, *arguments) == 2
    assert "not a bundle" in capfd.readouterr().err
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_help_never_imports_torch() -> None:
    code = (
        "import sys\n"
        "from fedmedclip.command import main\n"
        "sys.argv = ['fedmedclip', 'export', '--help']\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'open_clip', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_the_bundle_is_signed_with_the_key_that_is_named_or_with_none_that_cannot_be_kept(
    tiny_model: str,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    export = ["--model", tiny_model, "--classes", str(classes), "--precision", "fp32", "--force", "--out"]
    named = ["--key", str(tmp_path / "centre.key")]
    assert export_with(monkeypatch, *export, str(tmp_path / "bundle"), *named) == 0
    key = load_signing_key(tmp_path / "centre.key").public_key
    assert signer(tmp_path / "bundle") == key
    assert list(pins()) == [key]
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")
    capfd.readouterr()
    assert export_with(monkeypatch, *export, str(tmp_path / "bundle")) == 0
    captured = capfd.readouterr()
    assert "the bundle will not be signed: this user's own key cannot be kept" in captured.err
    assert "signed   nobody" in captured.out
    assert signer(tmp_path / "bundle") is None

"""`--prompts`: classes of the user's own on the edge, where neither PyTorch nor open_clip is."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.text_encoder import TextEncoder
from fedmedclip.protocol.bundle.bundle import TEXT_ENCODER, TOKENIZER, Bundle, open_bundle
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from tests import ROOT

CLASSES = 'templates = ["a {}"]\n[classes]\ncat = ["cat &amp; café"]\ndog = ["dog"]\n'


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)).save(path)
    return path


def predict(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """`fedmedclip predict`, and on standard error's last line which heavy modules it imported."""
    code = (
        "import sys\n"
        "from fedmedclip.command import main\n"
        f"sys.argv = ['fedmedclip', 'predict', *{list(map(str, arguments))!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        "    print('heavy:', *sorted({'torch', 'open_clip', 'ftfy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_prompts_give_other_classes_without_torch(text_bundle: Bundle, image: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_text(CLASSES)
    done = predict(image, "--bundle", text_bundle.folder, "--prompts", tmp_path / "classes.toml")
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row["label"] in ("cat", "dog")
    assert float(row["probability_cat"]) + float(row["probability_dog"]) == pytest.approx(1, abs=1e-5)
    assert done.stderr.splitlines()[-1] == "heavy: ftfy"


def test_heads_and_prompts_exclude_each_other(text_bundle: Bundle, image: Path, tmp_path: Path) -> None:
    (tmp_path / "heads").touch()
    (tmp_path / "classes.toml").write_text(CLASSES)
    done = predict(
        image, "-b", text_bundle.folder, "--prompts", tmp_path / "classes.toml", "-H", tmp_path / "heads"
    )
    assert done.returncode == 2
    assert "give --heads or --prompts, not both" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_without_text_tower_says_what_to_do(tiny_bundle: Bundle, tmp_path: Path) -> None:
    from fedmedclip.edge_client.features.new_prompts import open_with_prompts
    from fedmedclip.protocol.trust.decision import trust_of_user

    (tmp_path / "classes.toml").write_text(CLASSES)
    with pytest.raises(BundleError, match="export --with-text"):
        open_with_prompts(
            tiny_bundle.folder, tmp_path / "classes.toml", None, 1, trust_of_user(insecure=True)
        )


@pytest.mark.parametrize("name", [TEXT_ENCODER, TOKENIZER])
def test_a_changed_text_file_is_noticed_when_prompts_need_it(
    text_bundle: Bundle, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in text_bundle.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes() + (b" " if path.name == name else b""))
    with pytest.raises(BundleError, match="SHA-256"):
        open_bundle(folder)
    assert open_bundle(folder, with_text=False).digest == text_bundle.digest


def test_only_a_text_beyond_ascii_needs_ftfy(text_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with TextEncoder(text_bundle, 1) as encoder:
        assert encoder.encode(["A scan, it's 50% <clear>"]).shape == (1, 24)
        with pytest.raises(InvalidInputError, match=r"fedmedclip-edge\[text\]"):
            encoder.encode(["a café"])

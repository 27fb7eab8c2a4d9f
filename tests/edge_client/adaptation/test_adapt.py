"""`fedmedclip adapt`: heads for images that nobody has labelled, or a few; what it says and refuses."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.heads.heads_file import Heads, load_heads, save_heads
from fedmedclip.edge_client.inference.classifier import load
from fedmedclip.edge_client.inference.deployment.deploy import deploy
from fedmedclip.protocol.errors import BundleError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.heads_file import Judgement
from fedmedclip.protocol.heads.heads_signature import heads_signer
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.trust.decision import trust_of_user
from tests.edge_client.adaptation.conftest import PER_CLASS, scans_of, write_scans
from tests.edge_client.conftest import CLASS_NAMES
from tests.edge_client.heads.heads_examples import example_heads
from tests.edge_client.test_commands import fedmedclip

IMAGES = PER_CLASS * len(CLASS_NAMES)


def accuracy(place, heads_file):
    """Return the share of the place's scans that a heads file answers rightly."""
    with load(place.bundle.folder, heads_file) as classifier:
        answers = classifier.predict(place.scans)
    return np.mean([answer.path.split("/")[-1].startswith(answer.label) for answer in answers])


def fill_in(path):
    """Label a list by the names of its files; return the files."""
    comment, *rest = path.read_text().splitlines()
    rows = [[file, file.split("/")[-1].split("-")[0]] for file, _ in csv.reader(rest[1:])]
    lines = [comment, rest[0], *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return [file for file, _ in rows]


def test_unlabelled_scans_give_heads_that_predict_takes(place, adapt, tmp_path):
    output = tmp_path / "own.safetensors"
    found = json.loads(adapt("-o", output, "--json"))
    assert found["answers"] == "adapted head"
    assert (found["images"], found["copies"], found["skipped"], found["remarks"]) == (IMAGES, 0, {}, [])
    assert sum(each["adapted"] for each in found["classes"]) == pytest.approx(1)
    assert found["changed_from_zero_shot"]["images"] > 0
    assert accuracy(place, output) > max(accuracy(place, None), accuracy(place, place.heads))
    heads, given = load_heads(output, place.bundle), load_heads(place.heads, place.bundle)
    assert (heads.federation, heads.site, heads.version, heads.judgement) == ("trial", "", 2, None)
    assert heads.ensemble == EnsembleRule("calibrated", 1.0)
    assert all((heads.shared[name] == given.shared[name]).all() for name in given.shared)
    assert output.stat().st_mode & 0o777 == 0o600
    assert heads_signer(output).hex() == found["signed_by"]
    trust_of_user().require_heads(output)


def test_the_same_images_give_the_same_heads_and_say_so_in_tables(place, adapt, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    key = tmp_path / "site.key"
    store = tmp_path / "features.db"
    words = adapt("-o", first, "--signing-key", key, "--features", store)
    for expected in (
        "version 2 of federation trial (one-message)",
        "answers   adapted head: the classes lie apart here as they do in the federation",
        "zero-shot",
        "against the federation's head",
        "mean confidence",
        f"wrote     {first}, signed by",
    ):
        assert expected in words
    adapt("-o", second, "--signing-key", key, "--features", store)
    assert first.read_bytes() == second.read_bytes()
    assert "no heads were written" in adapt("--features", store)


def test_images_of_something_else_keep_what_there_was_and_say_why(place, adapt, tmp_path):
    write_scans(tmp_path / "else", scans_of(2, PER_CLASS, contrast=0.1))
    output = tmp_path / "own.safetensors"
    words = adapt("-o", output, images=tmp_path / "else")
    assert "answers   federation's head: " in words
    assert "it is kept as it came" in words
    assert f"against the federation's head: 0 of {IMAGES} answers changed (0.0%), agreement 1.00" in words
    assert accuracy(place, output) == accuracy(place, place.heads)


def test_images_of_one_class_alone_do_not_move_the_head(place, adapt):
    found = json.loads(adapt("--json", images=place.scans / "stroke-*.png"))
    assert found["answers"] != "adapted head"


def test_a_list_is_written_filled_in_and_used(place, adapt, tmp_path):
    path, output = tmp_path / "list.csv", tmp_path / "own.safetensors"
    words = adapt("--labels-to", path, "--label-these", 8)
    assert f"8 images in {path}; a label is one of: glioma, healthy, stroke" in words
    assert f"--labels {path}" in words
    listed = fill_in(path)
    assert {file.split("/")[-1].split("-")[0] for file in listed} == set(CLASS_NAMES)
    with path.open("a") as file:
        file.write(f"{place.scans / 'glioma-000.png'},\n")
    found = json.loads(adapt("--labels", path, "-o", output, "--json"))
    assert found["labelled"]["images"] == sum(each["labelled"] for each in found["classes"]) == 8
    assert found["labelled"]["adapted_without_labels"] >= found["labelled"]["zero_shot"]
    assert found["remarks"] == ["1 row of the list has no label yet"]
    assert accuracy(place, output) >= 0.9
    assert "right on the 8 labelled images, before any label was used" in adapt("--labels", path)
    # Asked again, it asks for others.
    more = tmp_path / "more.csv"
    adapt("--labels", path, "--labels-to", more, "--label-these", 4)
    assert len(fill_in(more)) == 4
    assert not set(fill_in(more)) & set(listed)


def test_labels_make_a_head_that_deploys(place, adapt, tmp_path):
    path, output = tmp_path / "list.csv", tmp_path / "own.safetensors"
    adapt("--labels-to", path, "--label-these", 12)
    fill_in(path)
    adapt("--labels", path, "-o", output)
    assert deploy(place.bundle.folder, output, tmp_path / "own.onnx").largest_difference <= 1e-5


def test_what_is_there_is_not_replaced_unasked(place, adapt, tmp_path):
    output, path = tmp_path / "own.safetensors", tmp_path / "list.csv"
    output.write_text("mine")
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match="replace it with --force or choose another --output"):
        adapt("-o", output)
    with pytest.raises(InvalidInputError, match="may hold labels that somebody has given"):
        adapt("--labels-to", path, "-o", output, "--force")
    assert output.read_text() == path.read_text() == "mine"
    adapt("-o", output, "--force")
    load_heads(output, place.bundle)


def test_copies_count_once_and_skipped_files_are_named(place, adapt, tmp_path):
    folder = tmp_path / "scans"
    shutil.copytree(place.scans, folder)
    shutil.copy(folder / "glioma-000.png", folder / "glioma-000 (2).png")
    (folder / "cut.png").write_bytes((folder / "glioma-001.png").read_bytes()[:200])
    found = json.loads(adapt("--json", images=folder))
    assert (found["images"], found["copies"]) == (IMAGES, 1)
    assert found["skipped"] == {str(folder / "cut.png"): "truncated"}
    with pytest.raises(InvalidInputError, match=r"strict: image .*cut\.png cannot be used"):
        adapt("--strict", images=folder)
    labels = folder / "labels.csv"
    labels.write_text("file,label\nglioma-000 (2).png,glioma\ncut.png,healthy\n")
    found = json.loads(adapt("--json", "--labels", labels, images=folder))
    assert found["labelled"]["images"] == 1
    assert found["remarks"] == ["1 label is of an image that cannot be read, and does not count"]
    with labels.open("a") as file:
        file.write("glioma-000.png,stroke\n")
    with pytest.raises(InvalidInputError, match="are the same image and have two labels"):
        adapt("--labels", labels, images=folder)


def test_few_images_are_enough_to_begin_with_a_warning(place, adapt):
    found = json.loads(adapt("--json", images=place.scans / "*-00*.png"))
    assert found["images"] == 10
    assert found["remarks"][0].startswith("only 10 different images: fewer than 16 say too little")


def test_a_sites_own_heads_are_adapted_anew(place, adapt, tmp_path):
    given, output = tmp_path / "site.safetensors", tmp_path / "own.safetensors"
    adapt("-o", output)
    heads = load_heads(output, place.bundle)
    judged = replace(heads, site="site-a", judgement=Judgement(40, 0.5, 0.75))
    save_heads(given, judged, place.bundle, place.centre)
    found = json.loads(adapt("-o", output, "--force", "--json", heads=given))
    assert found["site"] == "site-a"
    assert [remark.split(":")[0] for remark in found["remarks"]] == [
        "the private head in the file is not used",
        "its site had found zero-shot better than the heads in the file",
    ]
    assert load_heads(output, place.bundle).judgement is None


def test_heads_that_cannot_be_adapted_are_one_line(place, adapt, make_bundle, tmp_path):
    path, size = tmp_path / "heads.safetensors", place.bundle.manifest.embedding_size

    def refusal(heads, bundle=place.bundle):
        save_heads(path, heads, bundle, place.centre)
        with pytest.raises(HeadError) as refused:
            adapt(heads=path)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    trained, own = example_heads(0, size, len(CLASS_NAMES))
    other = Heads("fedmedclip", trained, own, "trial", "site-a", 3)
    assert "are of method 'fedmedclip', which cannot be adapted to images; ask the centre" in refusal(other)
    zero = initial_shared_head("one-message", size, 0, len(CLASS_NAMES))
    heads = Heads("one-message", zero, None, "trial", "", 0)
    assert "hold nothing of any site yet (version 0)" in refusal(heads)
    wrong = {name: array.copy() for name, array in load_heads(place.heads, place.bundle).shared.items()}
    wrong["class_sums"] *= 50
    assert "hold nothing of any site" in refusal(replace(heads, shared=wrong, version=1))
    wrong["spread"][:] = np.nan
    assert "'spread' has a NaN or infinite value" in refusal(replace(heads, shared=wrong))
    elsewhere = make_bundle(tmp_path / "elsewhere", seed=7)
    assert "these heads belong to bundle" in refusal(heads, elsewhere)
    wrong = {name: np.zeros((*array.shape, 2), np.float32) for name, array in zero.items()}
    assert "expected F32" in refusal(replace(heads, shared=wrong))


def test_images_and_labels_that_cannot_be_used_are_one_line(place, adapt, tmp_path):
    labels = tmp_path / "labels.csv"
    (tmp_path / "broken.png").touch()
    labels.write_text(f"file,label\n{place.scans}/glioma-000.png,glioblastoma\n")
    with pytest.raises(InvalidInputError, match=r"line 2: 'glioblastoma' is no class of the bundle"):
        adapt("--labels", labels)
    with pytest.raises(InvalidInputError, match=r"is none of the images given"):
        adapt("--labels", labels, images=place.scans / "stroke-*.png")
    with pytest.raises(InvalidInputError, match=r"no image could be read \(1 skipped: .*nothing was adapted"):
        adapt(images=tmp_path / "broken.png")
    with pytest.raises(InvalidInputError, match="does not exist"):
        adapt(images=tmp_path / "nowhere")


def test_frames_of_one_file_have_the_label_of_the_file(place, adapt, tmp_path):
    frames = [Image.fromarray(image) for image in scans_of(3, 8)]
    frames[0].save(tmp_path / "all.tif", save_all=True, append_images=frames[1:])
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nall.tif,glioma\nall.tif#frame=24,stroke\n")
    found = json.loads(adapt("--json", "--frames", "all", "--labels", labels, images=tmp_path / "all.tif"))
    assert [each["labelled"] for each in found["classes"]] == [23, 0, 1]


def test_what_nobody_trusted_signed_is_refused(untrusted_place, adapt, monkeypatch, tmp_path):
    monkeypatch.delenv("FEDMEDCLIP_INSECURE")
    centre = untrusted_place.centre.public_key.hex()
    with pytest.raises(BundleError, match="whom this user does not trust"):
        adapt()
    with pytest.raises(BundleError, match="--key asks for"):
        adapt("--key", "0" * 64)
    adapt("--key", centre)
    adapt("--insecure")
    unsigned = tmp_path / "unsigned.heads"
    save_heads(unsigned, load_heads(untrusted_place.heads, untrusted_place.bundle), untrusted_place.bundle)
    with pytest.raises(HeadError, match="is not signed"):
        adapt("--key", centre, heads=unsigned)


def test_a_base_installation_adapts_without_torch(place, tmp_path):
    done = fedmedclip(
        "adapt", place.scans, "-b", place.bundle.folder, "-H", place.heads,
        "-o", tmp_path / "own.safetensors", "--labels-to", tmp_path / "list.csv", without_extras=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "answers   adapted head" in done.stdout

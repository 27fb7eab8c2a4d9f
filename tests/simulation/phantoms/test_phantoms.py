"""The demo's images and its small CLIP: the same every time, readable, and worth learning from."""

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedmedclip.export.class_embeddings import embed_classes
from fedmedclip.export.model import LoadedModel, load_model
from fedmedclip.export.prompts import read_class_prompts
from fedmedclip.simulation.phantoms.anatomy import FINDINGS, draw_anatomy, render_phantom
from fedmedclip.simulation.phantoms.captions import MISREADINGS, Report, draw_caption, draw_report
from fedmedclip.simulation.phantoms.looks import (
    HOSPITAL_LOOKS,
    SERVER_REFERENCE_LOOK,
    WEIGHTINGS,
    Look,
    draw_pretraining_look,
    vary,
)
from fedmedclip.simulation.phantoms.measure_clip import embed_site, is_zero_shot_right
from fedmedclip.simulation.phantoms.phantoms import LEAST_PER_CLASS, SITES, write_federation
from fedmedclip.simulation.phantoms.pretraining_pairs import SIDE, PairsRecipe, draw_batch, render_examples
from tests import ROOT

MODEL_FOLDER = ROOT / "phantom_clip" / "fedmedclip_phantom_clip"
SMALL = 0.15


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    write_federation(folder, 3, scale=SMALL)
    return folder


@pytest.fixture(scope="module")
def phantom_clip() -> LoadedModel:
    return load_model(f"local-dir:{MODEL_FOLDER}", None)


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_writes_the_same_bytes(federation: Path, tmp_path: Path) -> None:
    write_federation(tmp_path, 3, scale=SMALL)
    assert _digests(tmp_path) == _digests(federation)


def test_another_seed_changes_every_image(federation: Path, tmp_path: Path) -> None:
    write_federation(tmp_path, 4, scale=SMALL)
    other, first = _digests(tmp_path), _digests(federation)
    assert other.keys() == first.keys()
    assert [name for name in first if other[name] == first[name]] == ["classes.toml"]


def test_every_image_is_a_different_one(federation: Path) -> None:
    digests = _digests(federation)
    assert len(set(digests.values())) == len(digests)


def test_every_site_has_the_planned_number_of_every_class(federation: Path) -> None:
    assert {entry.name for entry in federation.iterdir()} == {*(site.name for site in SITES), "classes.toml"}
    for site in SITES:
        for finding, count in zip(FINDINGS, site.counts, strict=True):
            files = list((federation / site.name / finding).iterdir())
            assert len(files) == max(LEAST_PER_CLASS, round(count * SMALL))
            assert {path.suffix for path in files} == {site.suffix}


def test_hospitals_are_of_the_planned_size_and_differ_in_labels() -> None:
    hospitals = [site for site in SITES if site.name.startswith("hospital")]
    assert len(hospitals) == 3
    assert all(360 <= sum(site.counts) <= 480 and min(site.counts) >= LEAST_PER_CLASS for site in hospitals)
    assert len({max(range(4), key=lambda c: site.counts[c]) for site in hospitals}) == 3


def test_images_are_8_bit_grey_and_not_square(federation: Path) -> None:
    for path in federation.glob("*/*/0000.*"):
        with Image.open(path) as picture:
            picture.load()
            assert picture.mode == "L"
            assert picture.width != picture.height
            assert min(picture.size) >= 96
            assert np.asarray(picture).std() > 20


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_federation(tmp_path, 0, scale=0.01, on_image=lambda done, total: calls.append((done, total)))
    total = len(SITES) * len(FINDINGS) * LEAST_PER_CLASS
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_classes_file_names_the_folders(federation: Path) -> None:
    content = tomllib.loads((federation / "classes.toml").read_text(encoding="utf-8"))
    assert tuple(content["classes"]) == FINDINGS
    assert all("{}" in template for template in content["templates"])
    assert list(read_class_prompts(federation).classes) == list(FINDINGS)


@pytest.mark.parametrize("finding", FINDINGS)
def test_only_the_finding_that_was_asked_for_is_drawn(finding: str) -> None:
    for seed in range(50):
        anatomy = draw_anatomy(finding, np.random.default_rng(seed))
        assert (anatomy.lesion is not None) == (finding in ("ring_lesion", "solid_mass"))
        assert (abs(anatomy.shift) > 0.06) == (finding == "midline_shift")


def test_a_look_shows_fluid_dark_or_bright() -> None:
    def middle_minus_brain(look: Look) -> float:
        generator = np.random.default_rng(1)
        pictures = [render_phantom("no_finding", vary(look, generator), generator) for _ in range(20)]
        mean = np.mean(pictures, axis=0)
        row, column = look.height // 2, look.width // 2
        ventricles = mean[row - 14 : row - 4, column - 9 : column + 9].mean()
        return float(ventricles - mean[row - 14 : row - 4, column + 24 : column + 34].mean())

    assert middle_minus_brain(SERVER_REFERENCE_LOOK) < -10
    assert middle_minus_brain(HOSPITAL_LOOKS[0]) > 10


@pytest.mark.parametrize("finding", FINDINGS)
def test_captions_fit_their_report(finding: str) -> None:
    generator = np.random.default_rng(0)
    for weighting in WEIGHTINGS:
        captions = [draw_caption(Report(finding, weighting), 0.5, 0.5, generator) for _ in range(40)]
        assert all(caption.fits(Report(finding, weighting)) for caption in captions)
        assert any(caption.findings == {finding} for caption in captions)
        assert any(len(caption.findings) > 1 for caption in captions)
        assert any(caption.weightings == {weighting} for caption in captions)


def test_reports_are_wrong_as_often_as_asked() -> None:
    generator = np.random.default_rng(0)
    assert draw_report("ring_lesion", "T1", 0.0, generator) == Report("ring_lesion", "T1")
    assert draw_report("ring_lesion", "T1", 1.0, generator) == Report(MISREADINGS["ring_lesion"], "T1")
    assert draw_report("solid_mass", "T2", 1.0, generator) == Report("solid_mass", "T2")


def test_a_pretraining_batch_pairs_images_with_their_captions() -> None:
    recipe = PairsRecipe(images=12, batch=8, captions=5)
    generator = np.random.default_rng(0)
    batch = draw_batch(render_examples(recipe, generator, lambda: None), recipe, generator)
    assert batch.pixels.shape == (8, 3, SIDE, SIDE)
    assert batch.pixels.dtype == torch.float32
    assert batch.fits.shape == (8, 5)
    assert len(batch.texts) == 5
    assert batch.fits.diagonal().all()


def test_pretraining_cuts_images_as_the_shipped_preprocessing_does(phantom_clip: LoadedModel) -> None:
    recipe = PairsRecipe(images=1, batch=2, captions=1)
    # The pool draws a weighting, then a look, then the image; the same draws give the same image here.
    generator = np.random.default_rng(5)
    kind = int(generator.choice(len(WEIGHTINGS), p=recipe.weighting_shares))
    look = draw_pretraining_look(WEIGHTINGS[kind], generator)
    picture = Image.fromarray(render_phantom(FINDINGS[0], look, generator))
    examples = render_examples(recipe, np.random.default_rng(5), lambda: None)
    shipped = phantom_clip.transform(picture)
    trained = (examples.pictures[0].float() / 255 - 0.25) / 0.25
    assert torch.allclose(shipped, trained.expand(3, -1, -1), atol=1e-5)


def test_the_shipped_model_is_small_and_half_precision() -> None:
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) <= 8_000_000
    configuration = json.loads((MODEL_FOLDER / "open_clip_config.json").read_text(encoding="utf-8"))
    assert configuration["model_cfg"]["text_cfg"]["vocab_size"] == 49408


def test_the_image_tower_gives_one_image_what_it_gives_many(phantom_clip: LoadedModel) -> None:
    generator = np.random.default_rng(2)
    pictures = [
        Image.fromarray(render_phantom(finding, HOSPITAL_LOOKS[0], generator)) for finding in FINDINGS
    ]
    pixels = torch.stack([phantom_clip.transform(picture) for picture in pictures])
    with torch.inference_mode():
        together = phantom_clip.network.visual(pixels)
        alone = torch.cat([phantom_clip.network.visual(pixels[i : i + 1]) for i in range(len(pixels))])
    assert together.shape == (4, 128)
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_shipped_model_knows_something_and_leaves_something_to_learn(
    phantom_clip: LoadedModel, federation: Path
) -> None:
    classes = embed_classes(phantom_clip, read_class_prompts(federation))
    sites = [embed_site(phantom_clip, federation / site.name) for site in SITES[:3]]
    right = np.concatenate([is_zero_shot_right(site, classes) for site in sites])
    assert 0.45 < right.mean() < 0.85
    assert 10 <= phantom_clip.network.logit_scale.exp().item() <= 60

"""`import fedmedclip` as a notebook or a program uses it."""

import doctest
import itertools
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import fedmedclip
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.images.opening import UnreadableImageError, quiet_decoders
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.errors import BundleError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests import ROOT
from tests.edge_client.conftest import (
    CLASS_NAMES,
    EMBEDDING_SIZE,
    random_pixels,
    write_image,
    write_tiny_bundle,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("api") / "bundle")


@pytest.fixture(scope="module")
def heads(bundle):
    path = bundle.folder.parent / "heads.safetensors"
    shared = initial_shared_head("fedmedclip", EMBEDDING_SIZE, 1)
    private = initial_private_head("fedmedclip", EMBEDDING_SIZE, len(CLASS_NAMES), 1, "site-a")
    save_heads(path, Heads("fedmedclip", shared, private, "trial", "site-a", 3), bundle)
    return path


@pytest.fixture(scope="module")
def classifier(bundle, heads):
    with fedmedclip.load(bundle.folder, heads) as opened:
        yield opened


@pytest.fixture
def scans(tmp_path):
    return [write_image(tmp_path / "scans" / f"{number:02}.png", seed=number) for number in range(20)]


def test_a_folder_its_files_and_their_pixels_are_answered_alike(classifier, scans):
    by_folder = classifier.predict(scans[0].parent)
    by_file = classifier.predict([str(scan) for scan in scans])
    by_pixels = classifier.predict([np.asarray(Image.open(scan)) for scan in scans])
    assert [answer.path for answer in by_folder] == [str(scan) for scan in scans]
    assert [answer.path for answer in by_pixels] == [None] * len(scans)
    for answers in (by_file, by_pixels):
        assert [a.probabilities for a in answers] == [a.probabilities for a in by_folder]
    first = by_folder[0]
    assert tuple(first.probabilities) == classifier.class_names == CLASS_NAMES
    assert first.label == max(first.probabilities, key=first.probabilities.__getitem__)
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert 0 < first.ensemble_weight < 1


def test_one_path_one_array_a_batch_and_a_mixture(classifier, scans):
    one = classifier.predict(scans[3])
    assert [answer.path for answer in one] == [str(scans[3])]
    pixels = np.asarray(Image.open(scans[3]))
    assert classifier.predict(pixels)[0].probabilities == one[0].probabilities
    batch = np.stack([random_pixels(seed) for seed in range(18)])
    assert len(classifier.predict(batch)) == 18
    mixed = classifier.predict([scans[0], pixels, str(scans[1]), scans[1]])
    assert [answer.path for answer in mixed] == [str(scans[0]), None, str(scans[1]), str(scans[1])]
    assert classifier.predict([]) == []


def test_a_grey_array_is_that_grey_in_three_channels(classifier):
    grey = random_pixels(5)[:, :, 0]
    coloured = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(classifier.embed(grey), classifier.embed(coloured))


def test_embeddings_are_unit_rows_that_predictions_are_made_of(classifier, scans):
    found = classifier.embed(scans)
    assert found.dtype == np.float32
    assert found.shape == (len(scans), EMBEDDING_SIZE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert classifier.embed([]).shape == (0, EMBEDDING_SIZE)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 1, 1, 8, 8), np.uint8),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused_with_its_shape(classifier, array):
    with pytest.raises(InvalidInputError, match=r"array of \w+ \(.*\) is no image; give uint8"):
        classifier.predict(array)


def test_unreadable_files_raise_or_are_left_out(classifier, scans, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(scans[0].read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        classifier.predict([scans[0], broken])
    answers = classifier.predict([scans[0], broken, scans[1]], skip_unreadable=True)
    assert [answer.path for answer in answers] == [str(scans[0]), str(scans[1])]
    assert classifier.embed([broken], skip_unreadable=True).shape == (0, EMBEDDING_SIZE)
    with pytest.raises(InvalidInputError, match="does not exist"):
        classifier.predict(tmp_path / "nowhere")


def test_wrong_files_are_errors_of_ours(bundle, heads, tmp_path):
    with pytest.raises(BundleError):
        fedmedclip.load(tmp_path)
    (tmp_path / "heads").write_bytes(b"no heads")
    with pytest.raises(HeadError):
        fedmedclip.load(bundle.folder, tmp_path / "heads")
    assert issubclass(HeadError, fedmedclip.FedMedClipError)


def test_without_heads_it_is_zero_shot(bundle, scans):
    with fedmedclip.load(str(bundle.folder)) as zero_shot:
        answer = zero_shot.predict(scans[0])[0]
        expected = zero_shot.embed(scans[0]) @ zero_shot.bundle.class_embeddings.T
    assert answer.ensemble_weight == 0
    assert answer.label == CLASS_NAMES[int(expected.argmax())]


def test_many_threads_ask_at_once(classifier, scans):
    expected = [answer.probabilities for answer in classifier.predict(scans)]
    before = list(warnings.filters)

    def ask(_):
        return [answer.probabilities for answer in classifier.predict(scans)]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(ask, range(24)):
            assert found == expected
    assert list(warnings.filters) == before


def test_an_explanation_is_of_one_image_a_path_or_an_array(classifier, scans):
    pixels = np.asarray(Image.open(scans[2]))
    by_path, by_array = classifier.explain(scans[2]), classifier.explain(pixels)
    assert isinstance(by_path, fedmedclip.Explanation)
    assert by_path.prediction.path == str(scans[2])
    assert by_path.prediction.probabilities == classifier.predict(scans[2])[0].probabilities
    assert by_path.probability == max(by_path.prediction.probabilities.values())
    np.testing.assert_array_equal(by_path.regions.map, by_array.regions.map)
    np.testing.assert_array_equal(by_path.embedding, classifier.embed(scans[2])[0])
    np.testing.assert_array_equal(classifier.regions(by_path.pixels).map, by_path.regions.map)
    for several in (scans[0].parent, np.stack([pixels, pixels])):
        with pytest.raises(InvalidInputError, match="has more than one image; give one"):
            classifier.explain(several)


def test_many_threads_ask_why_at_once(classifier, scans):
    expected = [classifier.explain(scan).regions for scan in scans[:4]]
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(classifier.explain, scans[:4] * 4)):
            serial = expected[number % 4]
            np.testing.assert_array_equal(found.regions.map, serial.map)
            assert found.regions.largest_loss == serial.largest_loss


def test_overlapping_readers_leave_the_warning_filters_as_they_were():
    before = list(warnings.filters)
    first, second = quiet_decoders(), quiet_decoders()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with first:
            second.__enter__()
        for module in ("PIL.Image", "fedmedclip.edge_client.images.readers.dicom_file"):
            warnings.warn_explicit("odd", UserWarning, "reader.py", 1, module=module)
        second.__exit__(None, None, None)
        assert seen == []
        warnings.warn_explicit("odd", UserWarning, "reader.py", 1, module="PIL.Image")
    assert len(seen) == 1
    assert list(warnings.filters) == before


def test_what_is_public_is_there_documented_and_needs_no_torch(bundle, scans):
    assert set(fedmedclip.__all__) <= set(dir(fedmedclip))
    for name in fedmedclip.__all__:
        assert getattr(fedmedclip, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fedmedclip.nothing
    program = (
        "import sys; sys.modules['torch'] = None; import fedmedclip; assert 'numpy' not in sys.modules\n"
        f"print(fedmedclip.load({str(bundle.folder)!r}).predict({str(scans[0])!r})[0].label)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in CLASS_NAMES


def test_the_quick_start_in_the_documentation_runs(bundle, heads, scans, tmp_path, monkeypatch, capsys):
    assert scans[0].parent == tmp_path / "scans"
    for name, target in (("bundle", bundle.folder), ("heads.safetensors", heads)):
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "how-to" / "explain.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(example, {})
    *answers, label, place = capsys.readouterr().out.splitlines()
    assert [answer.split()[0] for answer in answers] == [f"scans/{scan.name}" for scan in scans]
    assert label.split()[0] in CLASS_NAMES
    assert re.fullmatch(r"most at \(\d+, \d+\), \d+\.\d\d nats", place)


def test_the_examples_in_the_docstring_run(bundle, heads, scans, monkeypatch, capsys):
    (bundle.folder.parent / "scans").symlink_to(scans[0].parent)
    monkeypatch.chdir(bundle.folder.parent)
    # Its hospitals have more images.
    monkeypatch.setattr("fedmedclip.simulation.federation.simulate.DEFAULT_FLOORS", NO_FLOORS)
    seed = itertools.count()
    for site, name, number in itertools.product("ab", CLASS_NAMES, range(4)):
        write_image(bundle.folder.parent / "hospitals" / site / name / f"{number}.png", seed=next(seed))
    example = doctest.script_from_examples(
        "\n".join(f">>> {line[4:]}" if not line.startswith("        ") else f"... {line[4:]}"
                  for line in fedmedclip.__doc__.splitlines() if line.startswith("    "))
    )  # fmt: skip
    exec(example, {})
    lines = capsys.readouterr().out.splitlines()
    answers, explained, simulated = lines[: len(scans)], lines[len(scans) : -1], lines[-1]
    assert all(str(scan.name) in answer for scan, answer in zip(scans, answers, strict=True))
    assert explained[0].split()[0] in CLASS_NAMES
    assert len(explained) == 8
    accuracy, total_bytes = simulated.split()
    assert 0 <= float(accuracy) <= 1
    assert int(total_bytes) > 0

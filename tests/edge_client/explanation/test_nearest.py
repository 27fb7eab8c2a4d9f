"""A site's nearest training images come from its own files, and never from its test images."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedmedclip.edge_client.explanation.nearest import nearest_images
from fedmedclip.edge_client.explanation.site_files import site_files
from fedmedclip.edge_client.features.encoder import encoded_images
from fedmedclip.protocol.errors import InvalidInputError


def test_a_training_image_is_its_own_nearest_and_nothing_is_encoded(site, tiny_bundle):
    configuration, features = site
    before, state = encoded_images(), sorted(configuration.parent.rglob("*"))
    known = nearest_images(site_files(configuration), tiny_bundle)
    assert len(known) == len(features.train.labels)
    for embedding, label in zip(features.train.embeddings, features.train.labels, strict=True):
        first, *others = known.nearest_to(embedding, count=4)
        assert first.distance == pytest.approx(0, abs=1e-6)
        assert first.label == tiny_bundle.manifest.class_names[label] == first.file.parent.name
        assert len(others) == 3
        distances = [near.distance for near in (first, *others)]
        assert distances == sorted(distances)
    assert encoded_images() == before
    assert sorted(configuration.parent.rglob("*")) == state


def test_images_of_validation_and_test_are_never_named(site, tiny_bundle):
    configuration, features = site
    known = nearest_images(site_files(configuration), tiny_bundle)
    for embedding in (*features.test.embeddings, *features.validation.embeddings):
        assert known.nearest_to(embedding)[0].distance > 1e-4
        assert len(known.nearest_to(embedding, count=1000)) == len(known)


def test_threads_get_what_one_gets(site, tiny_bundle):
    configuration, features = site
    known = nearest_images(site_files(configuration), tiny_bundle)
    expected = [known.nearest_to(embedding) for embedding in features.train.embeddings]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(known.nearest_to, features.train.embeddings)) == expected


def test_without_the_site_s_files_it_says_what_to_do(site, tiny_bundle, make_bundle, tmp_path):
    configuration, _ = site
    other = make_bundle(tmp_path / "other", seed=9)
    with pytest.raises(InvalidInputError, match="no training image of this bundle"):
        nearest_images(site_files(configuration), other)
    text = configuration.read_text()
    configuration.write_text(text.replace('state = "state"', 'state = "elsewhere"'))
    with pytest.raises(InvalidInputError, match=r"no feature store .* run `fedmedclip site` with it once"):
        nearest_images(site_files(configuration), tiny_bundle)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", r"\[site\]|site"),
        ("site = 3", "site"),
        ("[site]\ndata = 5", "data"),
        ('[site]\ndata = "x"\n[images]\nframes = "some"', "frames"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(tmp_path, text, line):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=line) as found:
        site_files(path)
    assert "\n" not in str(found.value)


def test_a_feature_store_elsewhere_is_found(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('[site]\ndata = "images"\nfeature_store = "../shared.db"\n[images]\nframes = "first"\n')
    files = site_files(path)
    assert files.feature_store == tmp_path / "../shared.db"
    assert files.split == tmp_path / "site-state" / "split.csv"
    assert files.images.frames == "first"


def test_embeddings_need_not_be_unit(site, tiny_bundle):
    configuration, features = site
    known = nearest_images(site_files(configuration), tiny_bundle)
    embedding = features.train.embeddings[0]
    assert known.nearest_to(np.float32(7) * embedding) == known.nearest_to(embedding)

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.features.reference_command import run_reference
from fedmedclip.edge_client.features.references import (
    decode_reference,
    encode_reference,
    quantised,
    reference_of,
    summarised,
    target_embeddings,
)
from fedmedclip.protocol.bundle.bundle import REFERENCE_FILE, open_bundle
from fedmedclip.protocol.bundle.signature import SIGNATURE_FILE, sign_bundle, signer
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from fedmedclip.protocol.signature import load_or_create_signing_key
from tests.edge_client.conftest import EMBEDDING_SIZE
from tests.edge_client.heads.heads_examples import SIZE, example_data

EMBEDDINGS = example_data(200, noise=0.3)[0]


def test_embeddings_come_back_within_a_hundredth():
    encoded = encode_reference(quantised(EMBEDDINGS))
    assert len(encoded) < EMBEDDINGS.nbytes / 3
    found = target_embeddings(decode_reference(encoded, SIZE), 0, 0)
    np.testing.assert_allclose(found, EMBEDDINGS, atol=0.01)


def test_a_reference_of_embeddings_at_their_own_length_keeps_it_and_says_so():
    long = EMBEDDINGS * np.linspace(5, 12, len(EMBEDDINGS), dtype=np.float32)[:, None]
    found = target_embeddings(decode_reference(encode_reference(quantised(long)), SIZE), 0, 0)
    np.testing.assert_allclose(found, long, atol=0.1)
    reference = decode_reference(encode_reference(summarised(long, SIZE, 0.0, 0)), SIZE)
    drawn = target_embeddings(reference, 20_000, 1)
    np.testing.assert_allclose(drawn.mean(0), long.mean(0), atol=0.2)
    for reference in (quantised(EMBEDDINGS), summarised(EMBEDDINGS, 4, 0.0, 0)):
        assert b"own_length" not in encode_reference(reference)


def test_surrogates_have_mean_and_covariance_of_the_embeddings():
    reference = decode_reference(encode_reference(summarised(EMBEDDINGS, SIZE, 0.0, 0)), SIZE)
    drawn = target_embeddings(reference, 20_000, 1)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(drawn.mean(0), EMBEDDINGS.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(EMBEDDINGS.T), atol=0.02)
    assert np.array_equal(drawn[:5], target_embeddings(reference, 20_000, 1)[:5])


def test_noise_changes_every_value_and_low_rank_is_smaller():
    plain, noisy = (summarised(EMBEDDINGS, 4, noise, 0) for noise in (0.0, 1.0))
    assert (np.frombuffer(plain.mean, "<f4") != np.frombuffer(noisy.mean, "<f4")).all()
    assert len(encode_reference(plain)) < len(encode_reference(quantised(EMBEDDINGS)))
    with pytest.raises(InvalidInputError, match="at least 2 images"):
        summarised(EMBEDDINGS[:1], 4, 0.0, 0)


def test_another_encoders_reference_is_refused():
    with pytest.raises(
        InvalidInputError, match=f"embeddings of {SIZE} values, expected 4 and|expected 1 and 7"
    ):
        decode_reference(encode_reference(quantised(EMBEDDINGS)), 7)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_refused_or_finite(data):
    whole = bytearray(encode_reference(summarised(EMBEDDINGS[:8, :4], 2, 0.0, 0)))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        reference = decode_reference(damaged, 4)
    except InvalidInputError:
        return
    assert len(target_embeddings(reference, 3, 0))


def test_a_value_that_is_not_finite_is_refused():
    reference = summarised(EMBEDDINGS, 2, 0.0, 0)
    bad = msgspec.structs.replace(reference, mean=np.full(SIZE, np.nan, "<f4").tobytes())
    with pytest.raises(InvalidInputError, match="not finite"):
        decode_reference(encode_reference(bad), SIZE)


def test_the_command_puts_it_into_the_bundle(make_bundle, class_folders, tmp_path, capsys):
    bundle = make_bundle(tmp_path / "bundle")
    assert reference_of(bundle) is None
    run_reference(
        [str(class_folders)], bundle.folder, statistics=False, rank=4, noise=0.0, most=6, seed=0, threads=1
    )
    changed = open_bundle(bundle.folder)
    assert changed.digest != bundle.digest
    assert target_embeddings(reference_of(changed), 0, 0).shape == (6, EMBEDDING_SIZE)
    assert "6 images" in capsys.readouterr().out
    (bundle.folder / REFERENCE_FILE).write_bytes(b"other")
    with pytest.raises(BundleError, match=REFERENCE_FILE):
        open_bundle(bundle.folder)


def put_reference(bundle, images, key_file=None):
    run_reference(
        [str(images)], bundle.folder, statistics=True, rank=2, noise=0.0, most=6, seed=0, threads=1,
        key_file=key_file,
    )  # fmt: skip


def test_no_stale_signature_is_left(make_bundle, class_folders, tmp_path, capsys):
    bundle = make_bundle(tmp_path / "bundle")
    key = load_or_create_signing_key(tmp_path / "key")
    sign_bundle(bundle.folder, key)
    put_reference(bundle, class_folders)
    assert signer(bundle.folder) is None
    said = capsys.readouterr().out
    assert f"The signature by {key.public_key.hex()} was of the bundle as it was and is removed" in said
    assert f"fedmedclip bundle sign {bundle.folder} --key FILE" in said
    put_reference(bundle, class_folders, tmp_path / "key")
    assert signer(bundle.folder) == key.public_key


def test_a_signature_that_does_not_fit_or_a_missing_key_changes_nothing(make_bundle, class_folders, tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        put_reference(bundle, class_folders, tmp_path / "nowhere")
    (bundle.folder / SIGNATURE_FILE).write_bytes(b"of another manifest")
    with pytest.raises(BundleError, match=r"sign it again with `fedmedclip bundle sign`"):
        put_reference(bundle, class_folders)
    assert open_bundle(bundle.folder).digest == bundle.digest
    assert (bundle.folder / SIGNATURE_FILE).exists()

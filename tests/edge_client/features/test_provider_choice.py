"""Which execution provider encodes: the first that is there and computes rightly, else the processor."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fedmedclip.edge_client.features import provider_choice
from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.provider_choice import open_encoder
from fedmedclip.edge_client.features.providers import PROCESSOR, available_providers
from fedmedclip.edge_client.features.self_test import require_self_test_once
from fedmedclip.edge_client.inference.classifier import load
from fedmedclip.edge_client.site.configuration import ResourceSettings
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from tests.edge_client.bundles.test_bundle_checks import add_self_test
from tests.edge_client.conftest import HEIGHT, WIDTH, MakeBundle

CARD = "CUDAExecutionProvider"


@pytest.fixture(autouse=True)
def _says_it_again(caplog: pytest.LogCaptureFixture) -> None:
    """Let each test hear what is said once in a process."""
    provider_choice._warn_once.cache_clear()
    provider_choice._say_once.cache_clear()
    caplog.set_level(logging.INFO)


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: MakeBundle) -> Bundle:
    return add_self_test(make_bundle(tmp_path / "bundle"))


def pixels() -> Any:
    return np.random.default_rng(3).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)


class StandInForACard:
    """In the place of a session on a graphics card, which no test has: a real session of `computes`."""

    def __init__(self, computes: Path, registers: bool = True) -> None:
        self.computes, self.registers, self.options = computes, registers, {}
        self.open = onnxruntime.InferenceSession

    def __call__(self, path: str, options: Any, *, providers: Any, **more: Any) -> Any:
        ((name, given),) = providers
        if name != CARD:
            return self.open(path, options, providers=providers, **more)
        self.options = given
        session = self.open(str(self.computes), options, providers=[PROCESSOR.name], **more)
        if self.registers:
            session.get_providers = lambda: [CARD, PROCESSOR.name]
        return session


def with_a_card(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> StandInForACard:
    session = StandInForACard(*arguments)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CARD, PROCESSOR.name])
    return session


def test_the_processor_is_used_without_a_word(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with open_encoder(bundle) as encoder:
        assert encoder.provider == PROCESSOR.name
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["OpenVino", "AzureExecutionProvider", "", "x" * 500])
def test_an_unknown_provider_is_one_line_with_those_that_there_are(bundle: Bundle, name: str) -> None:
    with pytest.raises(InvalidInputError, match="unknown execution provider") as caught:
        load(bundle.folder, providers=[name])
    assert str(caught.value).endswith(f"(available here: {', '.join(available_providers())})")
    assert "\n" not in str(caught.value)
    assert PROCESSOR.name in available_providers()


@pytest.mark.parametrize("text", [f"{CARD}:device_id", f"{CARD}:=1", f"{CARD}:a=1,a=2"])
def test_options_that_are_none_are_refused_with_the_configuration(text: str) -> None:
    with pytest.raises(
        InvalidInputError, match="write for example OpenVINOExecutionProvider:device_type=GPU"
    ):
        ResourceSettings(providers=(text,))


def test_one_that_is_not_installed_is_passed_over_and_said_once(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with open_encoder(bundle, providers=["QNNExecutionProvider", PROCESSOR.name, CARD]) as encoder:
            assert encoder.provider == PROCESSOR.name
    warning, said = caplog.messages
    assert warning.startswith("QNNExecutionProvider is not used: the installed ONNX Runtime has only ")
    assert warning.endswith("; trying CPUExecutionProvider")
    assert said == "CPUExecutionProvider encodes the images"


def test_one_that_computes_rightly_is_used_with_its_options(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = with_a_card(monkeypatch, bundle.image_encoder)
    with open_encoder(bundle, 2, [f"{CARD}:device_id=1,arena=small"]) as encoder, Encoder(bundle) as usual:
        assert encoder.provider == CARD
        np.testing.assert_array_equal(encoder.encode(pixels()), usual.encode(pixels()))
    assert card.options == {"device_id": "1", "arena": "small"}
    assert caplog.messages == [f"{CARD} encodes the images"]
    with load(bundle.folder, providers=[CARD]) as classifier:
        assert classifier.provider == CARD
        assert len(classifier.predict(pixels())) == 3


def test_one_that_computes_wrongly_is_not_used(
    tmp_path: Path,
    bundle: Bundle,
    make_bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Encoder(bundle) as usual:
        expected = usual.encode(pixels())
    with_a_card(monkeypatch, make_bundle(tmp_path / "tampered", seed=1).image_encoder)
    with open_encoder(bundle, providers=[CARD]) as encoder:
        assert encoder.provider == PROCESSOR.name
        np.testing.assert_array_equal(encoder.encode(pixels()), expected)
    assert f"{CARD} is not used: it fails the self-test of bundle {bundle.folder} (largest" in caplog.text


def test_one_that_cannot_open_the_model_or_has_no_device_is_not_used(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    for arguments in ([damaged], [bundle.image_encoder, False]):
        with monkeypatch.context() as patch:
            with_a_card(patch, *arguments)
            with open_encoder(bundle, providers=[CARD]) as encoder:
                assert encoder.provider == PROCESSOR.name
    unopened, without_device = [line for line in caplog.messages if "not used" in line]
    assert "cannot be loaded (" in unopened
    assert f"not with {CARD}; trying" in unopened
    assert "cannot be started: its libraries or its device are missing" in without_device


def test_without_a_self_test_nothing_but_the_processor_is_trusted(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_a_card(monkeypatch, tiny_bundle.image_encoder)
    with open_encoder(tiny_bundle, providers=[CARD]) as encoder:
        assert encoder.provider == PROCESSOR.name
    assert "has no self-test to judge it by; export the bundle again" in caplog.text


def test_what_the_processor_cannot_open_is_the_bundles_fault(tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(tmp_path / "bundle", encoder=b"no model")
    with pytest.raises(BundleError, match="export the bundle again"):
        open_encoder(bundle, providers=[CARD])


def test_a_passed_self_test_holds_for_the_wanted_providers(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert require_self_test_once(bundle, tmp_path)
    with_a_card(monkeypatch, bundle.image_encoder)
    assert require_self_test_once(bundle, tmp_path, providers=[CARD])
    assert not require_self_test_once(bundle, tmp_path, providers=[CARD])
    assert require_self_test_once(bundle, tmp_path, providers=[f"{CARD}:device_id=1"])

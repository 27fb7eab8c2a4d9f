"""What site, clinic and doctor do with a bundle or heads that nobody trusted signed."""

import pytest
from typer.testing import CliRunner

from fedmedclip.command import app
from fedmedclip.edge_client.doctor.examination import examine
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.inference.classifier import load
from fedmedclip.edge_client.inference.deployment.deploy import deploy
from fedmedclip.edge_client.inference.evaluation import run_evaluation
from fedmedclip.edge_client.site.service import run_site
from fedmedclip.protocol.bundle.signature import sign_bundle, signer
from fedmedclip.protocol.errors import BundleError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.signature import new_signing_key
from fedmedclip.protocol.trust.decision import trust_of_user
from fedmedclip.protocol.trust.pins import own_key, pin, pins
from tests.edge_client.conftest import write_tiny_bundle
from tests.edge_client.test_commands import fedmedclip, one_line


@pytest.fixture(autouse=True)
def _nobody_says_insecure(monkeypatch):
    monkeypatch.delenv("FEDMEDCLIP_INSECURE")


@pytest.fixture
def unsigned_heads(tmp_path, bundle):
    size, classes = bundle.manifest.embedding_size, len(bundle.manifest.class_names)
    shared = initial_shared_head("fedmedclip", size, 1)
    private = initial_private_head("fedmedclip", size, classes, 1, "site-a")
    path = tmp_path / "heads.safetensors"
    save_heads(path, Heads("fedmedclip", shared, private, "trial", "site-a", 3), bundle)
    return path


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def configuration(tmp_path, bundle, class_folders):
    def write(**settings):
        path = tmp_path / "site.toml"
        lines = [f"{name} = {value}" for name, value in settings.items()]
        path.write_text(
            f'[site]\nfederation = "trial"\nname = "site-a"\nbundle = "bundle"\ndata = "{class_folders}"\n'
            + "\n".join(lines)
            + '\n[broker]\nhost = "127.0.0.1"\nport = 1\n'
        )
        return path

    return write


@pytest.mark.parametrize("run", [lambda path: run_site(path, once=True), lambda path: examine(None, path)])
@pytest.mark.parametrize("signed", ["by nobody", "by another", "by a key this user trusts"])
def test_a_site_refuses_a_bundle_that_its_pinned_key_did_not_sign(bundle, configuration, run, signed):
    centre, other = new_signing_key().public_key.hex(), new_signing_key()
    if signed != "by nobody":
        sign_bundle(bundle.folder, other)
    if signed == "by a key this user trusts":
        pin(other.public_key, "another centre")
    with pytest.raises(
        BundleError, match=f"aggregator_key in .site. asks for {centre}; ask the centre"
    ) as refusal:
        run(configuration(aggregator_key=f'"{centre}"'))
    assert str(bundle.folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_site_without_a_pinned_key_takes_what_its_user_trusts(bundle, configuration):
    with pytest.raises(
        BundleError, match=r"is not signed, and only what .*, or insecure = true in \[site\]$"
    ):
        run_site(configuration(), once=True)
    assert {finding.name for finding in examine(None, configuration(insecure="true"))} >= {"speed"}
    sign_bundle(bundle.folder, own_key())
    assert {finding.name for finding in examine(None, configuration())} >= {"speed"}
    with pytest.raises(InvalidInputError, match="leave one of them out"):
        examine(None, configuration(insecure="true", aggregator_key=f'"{"ab" * 32}"'))


def test_on_one_machine_what_is_signed_here_is_used(bundle, class_folders, unsigned_heads, caplog):
    use = ["predict", "--bundle", bundle.folder, "--heads", unsigned_heads, class_folders / "stroke"]
    line = one_line(fedmedclip(*use))
    assert f"bundle {bundle.folder} is not signed" in line
    assert f"fedmedclip bundle sign {bundle.folder}" in line
    assert command("bundle", "sign", bundle.folder).exit_code == 0
    assert signer(bundle.folder) == own_key().public_key
    line = str(command(*use).exception)
    assert f"heads {unsigned_heads} is not signed" in line
    assert f"fedmedclip heads sign {unsigned_heads}" in line
    assert command(*use, "--insecure").exit_code == 0
    assert f"heads {unsigned_heads} is used although nobody trusted signed it" in caplog.text
    assert command("heads", "sign", unsigned_heads).exit_code == 0
    assert "trusted: this user's own key" in command("heads", "show", unsigned_heads).output
    done = fedmedclip(*use, without_extras=True)
    assert done.returncode == 0
    assert "nobody trusted" not in done.stderr


def test_from_elsewhere_a_key_is_trusted_first(tmp_path, bundle, class_folders):
    centre = new_signing_key()
    sign_bundle(bundle.folder, centre)
    use = ["predict", "--bundle", bundle.folder, class_folders / "stroke"]
    digits = centre.public_key.hex()
    assert f"fedmedclip trust {digits}" in str(command(*use).exception)
    assert command(*use, "--key", digits).exit_code == 0
    assert "--key asks for" in str(command(*use, "--key", "ab" * 32).exception)
    assert "trusted: " + digits in command("trust", digits, "--note", "the centre").output
    assert command("trust").output == f"{digits}  the centre\n"
    assert command(*use).exit_code == 0
    assert "trusted: the centre" in command("bundle", "verify", bundle.folder).output
    assert "no longer trusted" in command("trust", digits, "--remove").output
    assert pins() == {}
    for wrong in (["trust", digits, "--remove"], ["trust", "--remove"], ["trust", "centre"]):
        assert isinstance(command(*wrong).exception, InvalidInputError)


def test_everything_that_classifies_asks_for_a_signature(tmp_path, bundle, class_folders, unsigned_heads):
    uses = {
        "load": lambda file, **trust: load(bundle.folder, file, **trust).close(),
        "evaluate": lambda file, **trust: run_evaluation(
            class_folders, bundle.folder, file, None, 1, trust=trust_of_user(trust.get("keys", ()))
        ),
        "deploy": lambda file, **trust: deploy(
            bundle.folder, file, tmp_path / "model.onnx", trust=trust_of_user(trust.get("keys", ()))
        ),
    }
    centre = new_signing_key()
    for use in uses.values():
        with pytest.raises(BundleError, match="is not signed"):
            use(None)
    sign_bundle(bundle.folder, centre)
    for use in uses.values():
        with pytest.raises(HeadError, match="is not signed, and --key asks for"):
            use(unsigned_heads, keys=[centre.public_key.hex()])
    assert not (tmp_path / "model.onnx").exists()

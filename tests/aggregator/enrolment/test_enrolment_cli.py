"""`fedmedclip federation` on the command line: from nothing to a member, and one line for what is wrong."""

import json

import pytest
from typer.testing import CliRunner

from fedmedclip.aggregator.enrolment.cli import federation_app
from fedmedclip.aggregator.enrolment.folder import open_folder
from fedmedclip.aggregator.enrolment.passphrase import VARIABLE
from fedmedclip.aggregator.enrolment.settings import read_lifetime, split_broker
from fedmedclip.protocol.enrolment.invitation import read_invitation
from fedmedclip.protocol.errors import InvalidInputError
from tests.aggregator.enrolment.centre import PASSPHRASE, PLUGIN, Hospital
from tests.edge_client.conftest import write_tiny_bundle


@pytest.fixture
def federation(tmp_path, monkeypatch):
    """Give `fedmedclip federation` in an empty folder, within this process; nobody sits at a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)

    def run(*arguments: object, passphrase: str | None = PASSPHRASE) -> str:
        environment = {} if passphrase is None else {VARIABLE: passphrase}
        done = CliRunner().invoke(federation_app, [str(argument) for argument in arguments], env=environment)
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def test_from_nothing_to_a_member_and_out_again(federation, tmp_path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "new.toml").write_text(
        f'name = "brain-mri"\nbroker = "localhost"\nbundle = "bundle"\nrounds = 3\nplugin = "{PLUGIN}"\n'
    )
    said = federation("init", "f", "--config", "new.toml")
    for command in (
        "mosquitto -c f/broker/mosquitto.conf",
        "fedmedclip aggregator --config f/aggregator.toml",
    ):
        assert command in said
    federation("invite", "hospital-a", "-f", "f", "--expires", "2h", "--most-samples", 70)
    path = tmp_path / "hospital-a-invitation.toml"
    assert not path.stat().st_mode & 0o077
    invitation = read_invitation(path.read_text(), str(path))
    assert invitation.expires - invitation.made == 7200
    assert invitation.number in federation("requests", "-f", "f")
    (tmp_path / "request").write_bytes(Hospital().request(invitation, invitation.made))
    federation("approve", "--request-file", "request", "-f", "f", "--output", "answer")
    assert (tmp_path / "answer").stat().st_size > 500
    (row,) = json.loads(federation("list", "--json", "-f", "f"))
    assert (row["site"], row["state"], row["most_samples"]) == ("hospital-a", "member", 70)
    federation("limit", "hospital-a", 50, "-f", "f")
    said = federation("revoke", "hospital-a", "-f", "f", "--reason", "left", passphrase=None)
    assert "federation renew --folder f" in said
    assert "certificates are on the revocation list" in federation("renew", "-f", "f")
    records = json.loads(federation("roster", "f/roster", "--json"))
    assert [record["entry"] for record in records] == ["Founded", "Admitted", "WeightLimited", "Revoked"]
    assert "revoked: left" in federation("list", "-f", "f")
    assert "all verified" in federation("roster", "-f", "f")


GIVEN = ("init", "f", "--name", "brain-mri", "--broker", "localhost")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init", "f"), "--name is missing"),
        (GIVEN[:4], "--broker is missing"),
        (GIVEN, "--passphrase-file FILE"),
        ((*GIVEN, "--passphrase-file", "open"), "chmod"),
        (("invite", "hospital-a"), "holds no federation"),
        (("invite", "hospital-a", "-f", "nowhere"), "there is no such folder"),
        (("approve", "-f", "."), "holds no federation"),
        (("roster", "open"), "no roster"),
        (("roster", "--adopt"), "takes over a file"),
    ],
)
def test_what_is_missing_is_one_line_and_nothing_waits_for_a_terminal(
    federation, tmp_path, arguments, words
) -> None:
    (tmp_path / "open").write_text(PASSPHRASE)
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(InvalidInputError) as refusal:
        federation(*arguments, passphrase=None)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "f").exists()


def test_a_founded_federation_opens(founded) -> None:
    assert open_folder(founded.path).settings.broker_hosts == ["127.0.0.1", "localhost"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker.example.org", ("broker.example.org", 8883)),
        ("broker.example.org:443", ("broker.example.org", 443)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("::1", ("::1", 8883)),
        ("[::1]", ("::1", 8883)),
        ("[2001:db8::1]:8884", ("2001:db8::1", 8884)),
    ],
)
def test_a_brokers_address_may_leave_out_the_port(text, expected) -> None:
    assert split_broker(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "mqtt://host", "host:0", "host:99999", "user@host", "host:x"])
def test_what_is_no_address_is_refused(text) -> None:
    with pytest.raises(InvalidInputError):
        split_broker(text)


def test_lifetimes_have_a_unit_and_an_end() -> None:
    assert read_lifetime("90m").total_seconds() == 5400
    assert read_lifetime("2w").days == 14
    for text in ("", "7", "d", "0d", "91d", "-1d", "1y", "7 d", "9" * 30 + "d", "²d"):
        with pytest.raises(InvalidInputError, match="--expires"):
            read_lifetime(text)

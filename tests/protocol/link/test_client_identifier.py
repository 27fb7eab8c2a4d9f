"""A session's name is short enough for every broker, stays the same, and nobody else can compute it."""

import hashlib
import hmac
import re
from base64 import b32encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.link.client_identifier import client_identifier
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, LinkSettings, Received
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key, new_signing_key
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests import ROOT
from tests.protocol.link.helpers import open_link, quiet, wait_for, write_accounts
from tests.protocol.link.test_scripted import scripted_broker
from tests.simulation.demo.real_federation import Federation, write_data

SETTINGS = LinkSettings()
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
FORM = re.compile(r"fmc[a-z2-7]{20}")


def key_of(private):
    return SigningKey(Ed25519PrivateKey.from_private_bytes(private))


@given(private=st.binary(min_size=32, max_size=32), federation=NAMES, site=NAMES | st.just(""))
def test_it_is_what_the_protocol_page_says(private, federation, site):
    """Against HKDF as RFC 5869 has it: extract with a salt of zeros, expand once."""
    secret = hmac.digest(bytes(32), private, "sha256")
    information = f"fedmedclip mqtt client identifier\0{federation}\0{site}".encode()
    expanded = hmac.digest(secret, information + b"\x01", "sha256")
    found = client_identifier(SETTINGS, key_of(private), federation, site)
    assert found == "fmc" + b32encode(expanded).decode().lower()[:20]
    assert FORM.fullmatch(found)
    assert len(found) == 23


def test_it_stays_over_restarts_and_differs_between_parties(tmp_path):
    key = load_or_create_signing_key(tmp_path / "site.key")
    again = load_or_create_signing_key(tmp_path / "site.key")
    assert client_identifier(SETTINGS, key, "trial", "a") == client_identifier(SETTINGS, again, "trial", "a")
    others = [
        client_identifier(SETTINGS, key, "trial", "a"),
        client_identifier(SETTINGS, key, "trial", "b"),
        client_identifier(SETTINGS, key, "trial"),
        client_identifier(SETTINGS, key, "second", "a"),
        client_identifier(SETTINGS, new_signing_key(), "trial", "a"),
    ]
    assert len(set(others)) == len(others)


def test_the_public_key_is_not_enough():
    key = new_signing_key()
    known = [key_of(key.public_key), key_of(hashlib.sha256(key.public_key).digest())]
    assert client_identifier(SETTINGS, key, "trial") not in {
        client_identifier(SETTINGS, guess, "trial") for guess in known
    }


def test_a_broker_that_asks_for_a_certain_one_gets_it():
    settings = LinkSettings(client_id="thing/7")
    assert client_identifier(settings, new_signing_key(), "trial", "a") == "thing/7"


@pytest.mark.parametrize(
    "script",
    [[bytes([0x20, 3, 0, 0x85, 0])], [bytes([0x20, 2, 0, 2])]],
    ids=["mqtt-5", "mqtt-3.1.1"],
)
def test_a_broker_that_refuses_it_is_fatal_with_what_to_set(script):
    with scripted_broker(script) as (settings, _):
        three = script[0][1] == 2
        settings = LinkSettings(host=settings.host, port=settings.port, protocol="3.1.1" if three else "5")
        with Link(settings, client_id="a") as link:
            ending = wait_for(link, Disconnected)
    assert ending.fatal
    assert "client identifier not valid" in ending.reason
    assert "broker.client_id" in ending.reason


@pytest.mark.slow
def test_under_the_shipped_rules_no_member_learns_or_takes_over_a_session(tmp_path, mosquitto_installed):
    passwords = write_accounts(tmp_path, "aggregator", "hospital-a")
    rules = [f"acl_file {ROOT / 'deploy' / 'federation.acl'}", f"password_file {passwords}"]
    lines = [*rules, "sys_interval 1", "log_dest topic", "log_type all"]
    key = new_signing_key()

    def as_user(user):
        return {"username": user, "password_file": str(tmp_path / user)}

    with MosquittoBroker(allow_anonymous=False, settings=lines) as broker:
        own = client_identifier(SETTINGS, key, "brain-mri")
        with open_link(broker, "fmcmember", **as_user("hospital-a")) as member:
            member.subscribe("$SYS/#", "#")
            wait_for(member, Connected)
            with open_link(broker, own, **as_user("aggregator")) as centre:
                wait_for(centre, Connected)
                assert quiet(member, Received, 2.5)
                guesses = [
                    "fmc-aggregator-brain-mri-00000000",
                    client_identifier(SETTINGS, new_signing_key(), "brain-mri"),
                ]
                for guess in guesses:
                    with open_link(broker, guess, **as_user("hospital-a")) as intruder:
                        wait_for(intruder, Connected)
                assert quiet(centre, Disconnected)


@pytest.mark.slow
def test_the_services_connect_under_it(tmp_path, mosquitto_installed):
    with MosquittoBroker(settings=["log_type notice"]) as broker:
        data = write_data(tmp_path / "data", ["site-a"])
        federation = Federation(tmp_path, broker, data, sites=["site-a"], rounds=1)
        federation.start("aggregator", "site-a")
        federation.wait_for_end()
        log = broker.log_file.read_text()
    keys = {
        "": load_or_create_signing_key(tmp_path / "aggregator" / "aggregator.key"),
        "site-a": load_or_create_signing_key(tmp_path / "site-a" / "site.key"),
    }
    connected = set(re.findall(r"New client connected from \S+ as (\S+)", log))
    assert connected == {client_identifier(SETTINGS, key, "trial", name) for name, key in keys.items()}

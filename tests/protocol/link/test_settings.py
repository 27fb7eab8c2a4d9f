"""The `[broker]` table: what it accepts, what it refuses, and how it says so."""

import json
from pathlib import Path

import msgspec
import pytest

from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.errors import InvalidInputError, LinkError
from fedmedclip.protocol.link.link import Link, LinkSettings
from fedmedclip.protocol.link.settings import read_password, split_host_port, tls_context


class Configuration(msgspec.Struct, forbid_unknown_fields=True):
    """The part of a configuration file that is tested here."""

    broker: LinkSettings = LinkSettings()


def read_broker(folder: Path, table: dict[str, object]) -> LinkSettings:
    """Write the `[broker]` table to a file, as an operator would, and read it."""
    path = folder / "site.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path.write_text("\n".join(["[broker]", *lines]))
    return read_configuration(path, Configuration).broker


def test_an_empty_table_is_a_broker_on_this_machine(tmp_path: Path) -> None:
    settings = read_broker(tmp_path, {})
    assert settings.address == "localhost:1883"
    assert settings.maximum_message_bytes == 131072
    assert settings.protocol == "auto"


@pytest.mark.parametrize(
    ("table", "port"),
    [
        ({}, 1883),
        ({"tls": True}, 8883),
        ({"transport": "websockets"}, 80),
        ({"transport": "websockets", "tls": True}, 443),
        ({"tls": True, "port": 1234}, 1234),
    ],
)
def test_the_usual_port_of_each_transport(tmp_path: Path, table: dict[str, object], port: int) -> None:
    assert read_broker(tmp_path, table).broker_port == port


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"hots": "x"}, "hots"),
        ({"host": ""}, r"\[broker\] host"),
        ({"host": "mqtt://broker"}, r"\[broker\] host"),
        ({"port": 0}, "port"),
        ({"port": "1883"}, "port"),
        ({"transport": "udp"}, "transport"),
        ({"websocket_path": "mqtt"}, r"\[broker\] websocket_path"),
        ({"ca_file": "ca.pem"}, "tls = true"),
        ({"tls": True, "key_file": "site.key"}, "needed together"),
        ({"password_file": "password"}, "needs a username"),
        ({"keepalive_seconds": 0}, "keepalive_seconds"),
        ({"protocol": "4"}, "protocol"),
        ({"maximum_message_bytes": 100}, "maximum_message_bytes"),
        ({"proxy": "http://proxy:3128"}, r"\[broker\] proxy"),
        ({"proxy": "proxy"}, r"\[broker\] proxy"),
        ({"first_retry_seconds": 10.0, "longest_retry_seconds": 5.0}, "longest_retry_seconds"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, table: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        read_broker(tmp_path, table)
    assert "site.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_names_are_relative_to_the_configuration() -> None:
    settings = LinkSettings(tls=True, ca_file="ca.pem", username="a", password_file="/etc/password")
    found = settings.relative_to(Path("/etc/fedmedclip"))
    assert found.ca_file == "/etc/fedmedclip/ca.pem"
    assert found.password_file == "/etc/password"
    assert found.certificate_file is None


def test_files_are_read_when_the_link_is_made(tmp_path: Path) -> None:
    missing = LinkSettings(tls=True, ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(InvalidInputError, match=r"broker.ca_file .*ca\.pem: there is no such file"):
        Link(missing, client_id="a")
    no_certificate = tmp_path / "text.pem"
    no_certificate.write_text("not a certificate")
    name = str(no_certificate)
    with pytest.raises(InvalidInputError, match=r"broker.ca_file .* no readable PEM"):
        tls_context(LinkSettings(tls=True, ca_file=name))
    with pytest.raises(InvalidInputError, match="not a matching pair"):
        tls_context(LinkSettings(tls=True, certificate_file=name, key_file=name))
    assert tls_context(LinkSettings()) is None


def test_a_pem_file_with_a_byte_order_mark_is_called_that(tmp_path: Path) -> None:
    name = str(tmp_path / "ca.pem")
    Path(name).write_bytes(b"\xef\xbb\xbf-----BEGIN CERTIFICATE-----\n")
    for settings in (
        LinkSettings(tls=True, ca_file=name),
        LinkSettings(tls=True, certificate_file=name, key_file=name),
    ):
        with pytest.raises(
            InvalidInputError, match="begins with a byte order mark: save it as UTF-8 without"
        ):
            tls_context(settings)


def test_the_password_is_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = LinkSettings(username="a", password_file=str(file))
    with pytest.raises(InvalidInputError, match="password_file"):
        read_password(settings)
    file.write_text("\n")
    with pytest.raises(InvalidInputError, match="empty"):
        read_password(settings)
    file.write_bytes(b"s\xc3\xa9same \r\nsecond line\n")
    assert read_password(settings) == "sésame "
    assert read_password(LinkSettings()) is None
    file.write_bytes(b"\xef\xbb\xbfsecret\r\n")
    assert read_password(settings) == "secret"
    # No line ends for an editor, so none for a password.
    for inside in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"):
        file.write_text(f"one{inside}two \nsecond line", encoding="utf-8", newline="")
        assert read_password(settings) == f"one{inside}two "
    file.write_bytes("secret".encode("utf-16"))
    with pytest.raises(InvalidInputError, match="UTF-16; save it as UTF-8"):
        read_password(settings)


@pytest.mark.parametrize("client_id", ["", "a\nb"])
def test_an_unusable_client_identifier_is_refused(client_id: str) -> None:
    with pytest.raises(LinkError, match="client identifier"):
        Link(LinkSettings(), client_id=client_id)


def test_addresses() -> None:
    assert split_host_port("proxy.example.org:3128", "x") == ("proxy.example.org", 3128)
    assert split_host_port("[::1]:80", "x") == ("::1", 80)
    for bad in ("", ":80", "a:", "a:0", "a:65536", "a:b", "http://a:80"):
        with pytest.raises(InvalidInputError, match="expected host:port"):
            split_host_port(bad, "x")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("[::1]", "[::1]:1883"),
        ("::1", "[::1]:1883"),
        ("2001:db8::17", "[2001:db8::17]:1883"),
        ("192.0.2.7", "192.0.2.7:1883"),
        ("broker.example.org", "broker.example.org:1883"),
    ],
)
def test_an_address_may_stand_in_brackets(tmp_path: Path, host: str, address: str) -> None:
    settings = read_broker(tmp_path, {"host": host})
    assert settings.address == address
    assert settings.host == host.strip("[]")
    assert msgspec.structs.replace(settings, tls=True).host == settings.host


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"host": "broker.example.org:8883"}, "the port in `port`"),
        ({"host": "[::1]:8883"}, "the port in `port`"),
        ({"host": "[broker]"}, "the port in `port`"),
        ({"host": "me:secret@broker"}, "username"),
        ({"host": "mqtt://me:secret@broker"}, "username"),
        ({"proxy": "me:secret@proxy:3128"}, "not supported"),
        ({"proxy": "http://me:secret@proxy:3128"}, "not supported"),
        ({"proxy": "http://proxy:3128"}, "expected host:port"),
        ({"proxy": "::1:3128"}, "in brackets"),
        ({"proxy": "[proxy]:3128"}, "in brackets"),
        ({"proxy": "proxy"}, "expected host:port"),
        ({"proxy": "proxy:99999"}, "expected host:port"),
    ],
)
def test_what_belongs_elsewhere_is_refused_with_its_place_and_without_a_password(
    tmp_path: Path, table: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words) as raised:
        read_broker(tmp_path, table)
    assert "secret" not in str(raised.value)


def test_a_proxy_may_be_an_address_of_version_6() -> None:
    assert split_host_port("[2001:db8::1]:3128", "proxy") == ("2001:db8::1", 3128)

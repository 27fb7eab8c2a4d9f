"""What `[http]` may say, and what is refused before anything listens."""

import subprocess
import sys

import pytest

from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.web.settings import read_token, tls_context

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_this_machine_alone_needs_neither_tls_nor_a_token(host):
    assert HttpSettings(host=host).on_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "clinic.example.org"])
@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({}, "TLS (certificate_file and key_file) and a token (token_file)"),
        ({"token": TOKEN}, "TLS"),
        ({"certificate_file": "c", "key_file": "k"}, "a token"),
    ],
)
def test_a_wider_door_needs_tls_and_a_token(host, given, lacking):
    with pytest.raises(InvalidInputError, match="is open to other machines, which needs") as refused:
        HttpSettings(host=host, **given)
    assert lacking in str(refused.value)
    assert "\n" not in str(refused.value)
    HttpSettings(host=host, token=TOKEN, certificate_file="c", key_file="k")


@pytest.mark.parametrize(
    "given",
    [
        {"token": "short"},
        {"token": "with a blank in it"},
        {"token": TOKEN, "token_file": "f"},
        {"certificate_file": "c"},
        {"key_file": "k"},
        {"client_ca_file": "a"},
        {"host": ""},
        {"host": "http://127.0.0.1"},
        {"allowed_origins": ["*"]},
        {"allowed_origins": ["https://a.example/path"]},
    ],
)
def test_values_that_do_not_fit_are_refused(given):
    with pytest.raises(InvalidInputError):
        HttpSettings(**given)


def test_a_token_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    settings = HttpSettings(token_file="token").relative_to(tmp_path)
    assert read_token(settings) == TOKEN.encode()
    path.chmod(0o644)
    with pytest.raises(InvalidInputError, match="other users"):
        read_token(settings)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(InvalidInputError, match="at least 16"):
        read_token(settings)


def test_files_that_are_no_certificates_are_named(tmp_path):
    for name in ("certificate", "key"):
        (tmp_path / name).write_text("nothing")
        (tmp_path / name).chmod(0o600)
    settings = HttpSettings(certificate_file="certificate", key_file="key").relative_to(tmp_path)
    with pytest.raises(InvalidInputError, match="not a matching pair"):
        tls_context(settings)
    (tmp_path / "key").unlink()
    with pytest.raises(InvalidInputError, match=r"http\.key_file .*no such file"):
        tls_context(settings)


def test_a_door_that_is_off_loads_nothing_of_its_libraries():
    code = (
        "import sys\n"
        "import fedmedclip.edge_client.serving.doors, fedmedclip.edge_client.serving.service\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "msgspec" in loaded
    assert not loaded & {"starlette", "uvicorn", "h11", "prometheus_client", "anyio"}

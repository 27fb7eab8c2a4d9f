"""A page starts, or says why not; its token is made once, for its owner alone."""

import logging
import socket

import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.pages.server import TOKEN_FILE, start_page
from fedmedclip.protocol.pages.settings import PageSettings
from tests.protocol.pages.asking import asked, logged_in, served
from tests.protocol.pages.standin import Standin


def test_a_port_that_is_taken_is_a_warning(tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as other, caplog.at_level(logging.INFO):
        port = other.getsockname()[1]
        assert start_page(Standin().page(), PageSettings(port=port), tmp_path) is None
    (warned,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned.startswith(f"there is no page: [page] cannot listen on 127.0.0.1:{port} (")
    assert warned.endswith("; choose another port")


def test_a_page_says_where_it_is_and_starts_again_on_the_same_port(tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedmedclip")
    first = start_page(Standin().page(), PageSettings(port=0), tmp_path)
    assert f"page: {first.address}" in caplog.text
    assert asked(first, "GET", "/")[0] == 200
    first.stop()
    again = start_page(Standin().page(), PageSettings(port=first.port), tmp_path)
    assert asked(again, "GET", "/")[0] == 200
    again.stop()


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / TOKEN_FILE
    with served(Standin().page(), tmp_path, allow_changes=True) as server:
        token = path.read_text().strip()
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(token) >= 32
        assert b"Name somebody" in asked(server, "GET", "/", headers=logged_in(server, token))[2]
    with served(Standin().page(), tmp_path, allow_changes=True):
        assert path.read_text().strip() == token


def test_a_page_that_changes_nothing_makes_no_token(tmp_path):
    with served(Standin().page(), tmp_path):
        assert not (tmp_path / TOKEN_FILE).exists()


@pytest.mark.parametrize(("content", "mode"), [("short\n", 0o600), ("", 0o600), ("a" * 40, 0o644)])
def test_a_token_that_is_none_or_that_others_can_read_is_refused(tmp_path, content, mode):
    path = tmp_path / TOKEN_FILE
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(InvalidInputError, match="page"):
        start_page(Standin().page(), PageSettings(port=0, allow_changes=True), tmp_path)

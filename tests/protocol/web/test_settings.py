"""What is wrong with a door is said by the name of its own table."""

import pytest

from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.pages.settings import PageSettings
from fedmedclip.protocol.web.settings import read_token, tls_context

KINDS = [(PageSettings, "page"), (HttpSettings, "http")]


@pytest.mark.parametrize(("kind", "table"), KINDS)
def test_a_token_file_and_certificates_are_named_by_their_table(tmp_path, kind, table):
    path = tmp_path / "file"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o644)
    with pytest.raises(InvalidInputError, match=rf"{table}\.token_file"):
        read_token(kind(token_file=str(path)))
    with pytest.raises(InvalidInputError, match=rf"{table}\.certificate_file"):
        tls_context(kind(certificate_file=str(tmp_path / "none"), key_file=str(path)))
    with pytest.raises(InvalidInputError, match=rf"{table}\.key_file"):
        tls_context(kind(certificate_file=str(path), key_file=str(path)))


@pytest.mark.parametrize(("kind", "table"), KINDS)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_no_kind_of_door_is_opened_wide_without_tls_and_token(kind, table, host):
    with pytest.raises(InvalidInputError, match=r"TLS .* and a token"):
        kind(host=host)

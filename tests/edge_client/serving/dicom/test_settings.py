import msgspec
import pytest

from fedmedclip.edge_client.serving.dicom.settings import DicomSettings
from fedmedclip.protocol.configuration.convert import convert
from fedmedclip.protocol.errors import InvalidInputError


def read(**values):
    return convert(values, DicomSettings, "serve.toml", "dicom")


def test_by_default_nobody_may_send():
    settings = read()
    assert (settings.host, settings.peers, settings.any_peer) == ("127.0.0.1", [], False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "node.example.org"])
def test_a_node_for_anybody_is_bound_to_loopback_only(host):
    with pytest.raises(InvalidInputError, match="anybody on the network"):
        read(host=host, any_peer=True)
    tls = {"certificate_file": "node.pem", "key_file": "node.key"}
    with pytest.raises(InvalidInputError, match="anybody on the network"):
        read(host=host, any_peer=True, **tls)
    assert read(host=host, any_peer=True, **tls, client_ca_file="ca.pem").any_peer
    assert read(host=host, peers=[{"ae_title": "CT1"}]).peers[0].host is None


def test_any_peer_may_stay_on_the_loopback_interface():
    assert all(read(host=host, any_peer=True).any_peer for host in ("127.0.0.1", "::1", "localhost"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ae_title": ""}, "AE title"),
        ({"ae_title": "SEVENTEEN_LETTERS"}, "AE title"),
        ({"ae_title": "A\\B"}, "AE title"),
        ({"ae_title": "   "}, "AE title"),
        ({"any_peer": True, "peers": [{"ae_title": "CT1"}]}, "leave one out"),
        ({"certificate_file": "node.pem"}, "needed together"),
        ({"client_ca_file": "ca.pem"}, "certificate_file"),
        ({"destinations": [{"ae_title": "P", "host": "h", "port": 104, "ca_file": "x"}]}, "tls = true"),
        ({"destinations": [{"ae_title": "P", "host": "h", "port": 104}] * 2}, "the same AE title"),
        ({"largest_file_bytes": 10}, "largest_file_bytes"),
        ({"colour": 1}, "colour"),
    ],
)
def test_what_does_not_fit_together_is_said_in_one_line(values, named):
    with pytest.raises(InvalidInputError, match=named):
        read(**values)


def test_paths_are_relative_to_the_configuration(tmp_path):
    destination = {"ae_title": "P", "host": "h", "port": 104, "tls": True, "ca_file": "ca.pem"}
    settings = read(
        reports="reports", certificate_file="/etc/a.pem", key_file="a.key", destinations=[destination]
    )
    settings = settings.relative_to(tmp_path)
    assert settings.reports == str(tmp_path / "reports")
    assert settings.certificate_file == "/etc/a.pem"
    assert settings.key_file == str(tmp_path / "a.key")
    assert settings.destinations[0].ca_file == str(tmp_path / "ca.pem")
    assert msgspec.structs.asdict(settings)["client_ca_file"] is None

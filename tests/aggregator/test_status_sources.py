"""A status from elsewhere: the aggregator's page, the broker; and what is made of it for scripts."""

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import msgspec
import pytest

from fedmedclip.aggregator.attention import needing_attention
from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.observer import Observer, Vantage
from fedmedclip.aggregator.page_address import PageAddress
from fedmedclip.aggregator.status import FederationStatus, Flood, MemberStatus, status_of
from fedmedclip.aggregator.status_watch import as_json, exit_code, watch
from fedmedclip.protocol.errors import InvalidInputError, LinkError
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.signature import new_signing_key
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.simulation.federation.loopback import FEDERATION, Loopback, play_to

STATUS = FederationStatus(
    "trial", 1, "2026-01-01 00:00:00Z", "fedmedclip", 2, 9, True, False, False, 2, 0, None, [],
    deadline_seconds=100.0,
)  # fmt: skip


def changed(**changes):
    return needing_attention(msgspec.structs.replace(STATUS, **changes))


def test_what_goes_on_or_is_over_needs_nobody():
    away = [MemberStatus("site-a", "away", 9000.0), MemberStatus("site-b", "awaited")]
    certificates = [CertificateEnd("site-a", time.time() + 15 * 86_400)]
    for status in (
        changed(members=away[1:], certificates=certificates),
        changed(finished=True, members=away),
    ):
        assert (status.attention, exit_code(status)) == ([], 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"paused": True}, "paused"),
        ({"source": "state", "running": False}, "does not run"),
        ({"round_seconds": 100.0, "delivered": 1}, "round 3 is overdue: 1 of at least 2"),
        ({"members": [MemberStatus("site-a", "awaited", late_seconds=60.0)]}, "site-a is late"),
        ({"members": [MemberStatus("site-a", "away", 7200.0)]}, "site-a is away for 2.0 h"),
        ({"members": [MemberStatus("site-a", "unable", reason="too old")]}, "cannot take part: too old"),
        ({"members": [MemberStatus("a", "excused", reason="its update was refused: NaN")]}, "refused: NaN"),
        ({"certificates": [CertificateEnd("site-a", time.time() + 86_400 * 13)]}, "certificate of site-a"),
        ({"certificates": [CertificateEnd("the broker", 5.0)]}, "the broker has ended"),
        ({"floods": [Flood("site-a", "joins", 3)]}, "too many joins of site-a"),
        ({"warnings": ["the list lacks one"]}, "the list lacks one"),
    ],
)
def test_what_somebody_should_look_at_is_said_and_is_code_1(changes, said):
    status = changed(**changes)
    assert exit_code(status) == 1
    assert said in " ".join(status.attention)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers["Authorization"] == "Bearer a-token-of-the-page"
        if self.path == "/elsewhere/api/status" or not right:
            self.send_response(302 if right else 401)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def page():
    server = HTTPServer(("127.0.0.1", 0), _Page)
    server.answer = msgspec.json.encode(STATUS)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("a-token-of-the-page\n")
    path.chmod(0o600)
    return path


def test_the_page_is_asked_with_its_token(page, token_file):
    address = f"http://127.0.0.1:{page.server_port}"
    assert PageAddress(address, token_file).read() == STATUS
    with pytest.raises(InvalidInputError, match="401, the token is missing or wrong"):
        PageAddress(address).read()
    page.answer = b'{"no": "status"}'
    with pytest.raises(InvalidInputError, match="no status of this version"):
        PageAddress(address, token_file).read()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://centre.example.org:8443", "the token would be read by others"),
        ("https://centre.example.org/page", "without a path"),
        ("centre.example.org", "expected https"),
        ("https://anna:secret@centre.example.org", "expected https"),
        ("http://127.0.0.1:1", "cannot be read"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(address, said):
    with pytest.raises(InvalidInputError, match=said):
        PageAddress(address).read()


def test_a_watch_prints_a_line_for_each_change_and_none_for_the_time_that_passes(capsys):
    member = MemberStatus("site-a", "awaited", 1.0)
    looks = iter(
        [
            changed(members=[member]),
            changed(members=[msgspec.structs.replace(member, seconds=3.0)]),
            LinkError("the broker is gone"),
            changed(version=3, members=[member]),
            changed(version=3, paused=True),
        ]
    )

    def read():
        if isinstance(found := next(looks), Exception):
            raise found
        return found

    assert watch(read, lines=True, every_seconds=0.0, looks=5) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["version"] for line in printed.out.splitlines()] == [2, 3, 3]
    assert "not read this time: the broker is gone" in printed.err


def test_ctrl_c_ends_a_watch_with_the_code_of_the_last_look():
    looks = iter([STATUS])

    def read():
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    assert watch(read, lines=True, every_seconds=0.0) == 0


@pytest.mark.slow
def test_by_what_the_broker_retains_it_says_version_presence_and_whose_key_signs(
    tmp_path, mosquitto_installed
):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    play_to(federation, 1)
    version = federation.coordinator.global_head.version
    with MosquittoBroker() as broker:
        settings = LinkSettings(host=broker.host, port=broker.port)
        with Link(settings, client_id="publisher", lasting=False) as link:
            for topic, payload in federation.retained.items():
                link.publish(topic, payload, retain=True)
            while link.unfinished:
                link.next_event(0.05)
        pinned = federation.aggregator_key.public_key
        with Observer(Vantage(settings, FEDERATION, pinned)) as observer:
            status = observer.look()
        assert (status.source, status.version, status.rounds) == ("broker", version, 3)
        assert {member.site: member.part for member in status.members} == {"site-0": "here", "site-1": "here"}
        assert "the trusted one" in status.signed_by
        assert any("whether the aggregator runs" in what for what in status.unknown)
        vantage = Vantage(settings, FEDERATION, new_signing_key().public_key)
        with (
            Observer(vantage) as observer,
            pytest.raises(InvalidInputError, match="this configuration trusts"),
        ):
            observer.look()
        vantage = Vantage(settings, "another")
        with (
            Observer(vantage) as observer,
            pytest.raises(InvalidInputError, match="no plan of the federation 'another'"),
        ):
            observer.look(1.0)


def test_without_a_broker_there_is_one_line():
    vantage = Vantage(LinkSettings(host="127.0.0.1", port=1), FEDERATION)
    with Observer(vantage) as observer, pytest.raises(LinkError, match="cannot be read"):
        observer.look(0.3)


def test_refusals_are_shown_with_the_reason_of_the_last(tmp_path):
    federation = Loopback(tmp_path, sites=1, rounds=2)
    play_to(federation, 0)
    federation.coordinator._run.refuse("site-0", "site-0", "its signature is wrong", 0.0)
    (member,) = status_of(federation.coordinator, 0.0).members
    assert (member.refused_messages, member.last_refusal) == (1, "its signature is wrong")
    assert json.loads(as_json(status_of(federation.coordinator, 0.0)))["members"][0]["last_refusal"]

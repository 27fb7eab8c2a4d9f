"""The doctor does at the broker what the site will do, and leaves nothing behind."""

import pytest

from fedmedclip.edge_client.doctor.broker import reach
from fedmedclip.edge_client.doctor.finding import State
from fedmedclip.edge_client.doctor.rehearsal import rehearse
from fedmedclip.protocol.link.link import Connected, Disconnected, Message, Published, Received
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests import ROOT
from tests.protocol.link.helpers import open_link, quiet, settings_for, wait_for, write_accounts

PLAN = "fmc1/brain-mri/plan"
RULES = (ROOT / "deploy" / "federation.acl").read_text().replace("hospital-", "site-")


@pytest.fixture
def guarded(tmp_path, mosquitto_installed):
    """Return a function that starts a broker with access rules, and passwords that are the names."""
    passwords = write_accounts(tmp_path, "aggregator", "site-a", "site-b")

    def start(rules):
        (tmp_path / "rules.acl").write_text(rules)
        lines = [f"acl_file {tmp_path / 'rules.acl'}", f"password_file {passwords}"]
        return MosquittoBroker(allow_anonymous=False, settings=lines)

    return start


def as_user(tmp_path, user):
    return {"username": user, "password_file": str(tmp_path / user)}


def states(findings):
    return {finding.name: finding.state for finding in findings}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_under_the_shipped_rules_all_is_tried_and_a_running_site_is_left_alone(tmp_path, guarded, protocol):
    status = "fmc1/brain-mri/status/site-a"
    with guarded(RULES) as broker, open_link(broker, **as_user(tmp_path, "aggregator")) as centre:
        centre.publish(PLAN, b"plan", retain=True)
        wait_for(centre, Published)
        running = {"client_id": "fmcabcdefghijklmnopqrst", "will": Message(status, b"gone", retain=True)}
        with open_link(broker, **running, **as_user(tmp_path, "site-a")) as site:
            site.publish(status, b"online", retain=True)
            wait_for(site, Published)
            settings = settings_for(broker, protocol=protocol, **as_user(tmp_path, "site-a"))
            found = list(rehearse(settings, "brain-mri", "site-a"))
            named = ["MQTT", *["size"] * (protocol == "3.1.1"), "publishing", "retained", "federation"]
            assert states(found) == dict.fromkeys(named, State.OK)
            centre.subscribe("fmc1/#")
            kept = {}
            while (event := centre.next_event(0.5)) is not None:
                if isinstance(event, Received):
                    kept[event.topic] = event.payload
                    event.acknowledge()
            assert kept == {PLAN: b"plan", status: b"online"}
            assert quiet(site, Received)


@pytest.mark.slow
def test_a_user_name_that_is_not_the_sites_is_found(tmp_path, guarded):
    with guarded(RULES) as broker:
        settings = settings_for(broker, **as_user(tmp_path, "site-b"))
        found = {finding.name: finding for finding in rehearse(settings, "brain-mri", "site-a")}
    assert found["publishing"].state is State.BAD
    assert "not authorized" in found["publishing"].words
    assert "user name" in found["publishing"].advice


@pytest.mark.slow
def test_rules_without_the_doctors_topic_are_no_fault_of_the_site(tmp_path, guarded):
    without = "".join(line for line in RULES.splitlines(True) if "doctor" not in line)
    with guarded(without) as broker:
        settings = settings_for(broker, **as_user(tmp_path, "site-a"))
        found = {finding.name: finding for finding in rehearse(settings, "brain-mri", "site-a")}
    assert found["publishing"].state is State.OK
    assert found["retained"].state is State.NOTE
    assert "fmc1/+/doctor/%u" in found["retained"].advice
    assert found["federation"].state is State.NOTE


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"settings": ["retain_available false"]}, ("retained", "keeps no retained")),
        ({"listener_settings": ["max_qos 0"]}, ("QoS 1", "QoS 0 alone")),
        pytest.param(
            {"settings": ["max_packet_size 600"]},
            ("at most 600 bytes", "max_packet_size"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["retain", "quality", "packets"],
)
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_a_broker_with_which_the_site_would_not_work(mosquitto_installed, lines, words, protocol):
    with MosquittoBroker(**lines) as broker:
        found = list(rehearse(settings_for(broker, protocol=protocol), "trial", "site-a"))
    assert found[-1].state is State.BAD
    assert not {"publishing", "retained", "federation"} & states(found).keys()
    assert words[protocol == "3.1.1"] in found[-1].words


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["auto", pytest.param("3.1.1", marks=pytest.mark.slow)])
def test_a_broker_that_takes_less_than_is_configured_is_a_note_with_what_to_set(
    mosquitto_installed, protocol
):
    with MosquittoBroker(settings=["max_packet_size 20000"]) as broker:
        found = rehearse(settings_for(broker, protocol=protocol), "trial", "site-a")
        found = {finding.name: finding for finding in found}
    assert found["publishing"].state is found["retained"].state is State.OK
    if protocol == "auto":
        assert "messages of 19904 bytes" in found["MQTT"].words
    else:
        assert found["size"].state is State.NOTE
        assert "maximum_message_bytes = 16384" in found["size"].advice


@pytest.mark.slow
def test_with_one_identifier_for_both_a_running_site_is_left_alone(mosquitto_installed):
    with MosquittoBroker() as broker, open_link(broker, "hospital-a") as site:
        wait_for(site, Connected)
        settings = settings_for(broker, client_id="hospital-a")
        found = reach(settings, "trial", "hospital-a", running=True)[-1]
        assert (found.name, found.state) == ("MQTT", State.NOTE)
        assert "stop the site" in found.advice
        assert quiet(site, Disconnected)
    with MosquittoBroker(settings=["log_type notice"]) as broker:
        settings = settings_for(broker, client_id="hospital-a")
        assert reach(settings, "trial", "hospital-a", running=False)[-1].name == "federation"
        assert " as hospital-a " in broker.log_file.read_text()

"""From invitation to revocation with a real Mosquitto and the aggregator as a process."""

import time

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedmedclip.aggregator.control import read_status
from fedmedclip.aggregator.enrolment.answers import answer_in
from fedmedclip.aggregator.enrolment.decisions import approve, pending_requests
from fedmedclip.aggregator.enrolment.member_list import member_rows
from fedmedclip.aggregator.enrolment.membership import revoke_certificates, revoke_member, rotate_key
from fedmedclip.aggregator.enrolment.renewal import renew_all, waiting_renewals
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.enrolment.answer import open_answer
from fedmedclip.protocol.enrolment.enrolment_topics import enrol, enrolled
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.link.link import Connected, Disconnected, Received
from fedmedclip.protocol.messages import Plan, Receipt, Renewal, RenewalRequest, RosterNotice, Update
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.roster.chain import open_roster
from tests.aggregator.enrolment.centre import (
    FEDERATION,
    PASSPHRASE,
    Hospital,
    digest,
    invitation_to,
    join_by_file,
)
from tests.aggregator.enrolment.processes import (
    FoundedBroker,
    Site,
    aggregator_of,
    clients_of,
    eventually,
    knocking,
)
from tests.protocol.link.helpers import quiet, wait_for


@pytest.fixture(scope="module")
def broker(tmp_path_factory, mosquitto_installed):
    with FoundedBroker(tmp_path_factory.mktemp("c")) as broker, aggregator_of(broker.federation):
        yield broker


def in_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def member(broker: FoundedBroker, name: str) -> Site:
    """A member that joined by files."""
    hospital = Hospital(name)
    approval = join_by_file(broker.federation, hospital, time.time())
    eventually(lambda: f'"{name}"' in clients_of(broker.federation))
    return Site(broker, hospital, in_pem(answer_in(approval.answer).certificate))


def an_update(plan: Plan) -> Update:
    head = initial_shared_head("fedmedclip", plan.embedding_size, 5, 3)
    scaled = {name: array * np.float32(0.01) for name, array in head.items()}
    specification = shared_head_specification("fedmedclip", plan.embedding_size, 3)
    return Update(1, 120, refer_to(encode_head(codec_named("int8"), scaled, specification).data, 1 << 17), 0)


@pytest.mark.slow
def test_from_invitation_to_revocation_over_the_broker(broker) -> None:
    folder, hospital = broker.federation, Hospital()
    invitation = invitation_to(folder)
    encoded = hospital.request(invitation, time.time())
    with knocking(broker, invitation) as newcomer:
        # It is let in when the aggregator has told the broker of the invitation.
        newcomer.subscribe(enrolled(FEDERATION, invitation.number))
        newcomer.publish(enrol(FEDERATION, invitation.number), encoded)
        eventually(lambda: _asked(newcomer, invitation, encoded, folder))
        approve(folder, "hospital-a", PASSPHRASE, time.time(), approved_by="her")
        newcomer.subscribe(enrolled(FEDERATION, invitation.number))
        received = wait_for(newcomer, Received, lambda event: bool(event.payload))
        received.acknowledge()
    key = bytes.fromhex(invitation.coordinator_key)
    answer, roster = open_answer(received.payload, key, digest(encoded))
    assert answer.accepted
    assert roster.members.active("hospital-a").public_key == hospital.key.public_key

    site, bystander = Site(broker, hospital, in_pem(answer.certificate)), member(broker, "hospital-b")
    with site.link, bystander.link:
        assert site.join().accepted
        assert bystander.join().accepted
        # Its invitation lets nobody in any more.
        eventually(lambda: f"enrol-{invitation.number}" not in clients_of(folder))
        site.send(an_update(site.plan))
        assert site.next(Receipt).accepted
        assert [row.software for row in member_rows(folder)] == ["0.2.0", "0.2.0"]

        started = time.monotonic()
        revoke_member(folder, "hospital-a", "left the study", time.time())
        with folder.changing():
            revoke_certificates(folder, PASSPHRASE, time.time())
        ending = wait_for(site.link, Disconnected)
        assert "administrative action" in ending.reason
        assert time.monotonic() - started < 5.0
        with site.another_link() as again:
            assert quiet(again, Connected, 1.0)
        status = read_status(folder.configuration_file)
        assert ([item.site for item in status.members], status.delivered) == (["hospital-b"], 0)
        bystander.send(an_update(bystander.plan))
        assert bystander.next(Receipt).accepted
        notice = bystander.next(RosterNotice, lambda found: found.records == 4)
        assert open_roster(notice.payload).members.active("hospital-a") is None
        assert not [event for event in bystander.passed if isinstance(event, Disconnected)]


def test_renewal_and_rotation_disturb_nobody(broker) -> None:
    folder, site = broker.federation, member(broker, "hospital-c")
    with site.link:
        assert site.join().accepted
        site.send(RenewalRequest(Hospital("hospital-c").certificate_request()))
        eventually(lambda: waiting_renewals(folder) == ["hospital-c"])
        renew_all(folder, PASSPHRASE, time.time())
        renewed = site.next(Renewal)
        assert x509.load_der_x509_certificate(renewed.certificate).subject.rfc4514_string() == "CN=hospital-c"

        roster, _ = rotate_key(folder, time.time())
        plan = site.next(Plan, lambda found: found.aggregator_key == roster.coordinator_key)
        assert plan.identity == site.plan.identity
        assert plan.revision > site.plan.revision
        site.send(an_update(site.plan))
        assert site.next(Receipt).accepted
        assert not [event for event in site.passed if isinstance(event, Disconnected)]


def _asked(newcomer, invitation, encoded, folder) -> bool:
    """Ask until the request has come: the broker may not have known of the invitation yet."""
    if pending_requests(folder):
        return True
    newcomer.publish(enrol(FEDERATION, invitation.number), encoded)
    time.sleep(0.3)
    return False

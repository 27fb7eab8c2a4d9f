"""A kit: made on the box, gone on with after an interruption, completed by the coordinator's answer alone."""

import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedmedclip.aggregator.authority.certificate_authority import (
    Authority,
    create_authority,
    issue_client_certificate,
)
from fedmedclip.edge_client.enrolment.kit import (
    Kit,
    make_kit,
    make_request,
    pending_request,
    read_invitation_file,
    take_answer,
)
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.certificates import certificate_fingerprint
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.enrolment.answer import Answer, encode_answer
from fedmedclip.protocol.enrolment.invitation import (
    Invitation,
    invitation_text,
    require_open,
    sign_invitation,
)
from fedmedclip.protocol.enrolment.token import enrolment_key, new_token
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.link.settings import tls_context
from fedmedclip.protocol.roster.chain import found
from fedmedclip.protocol.roster.entries import Admitted
from fedmedclip.protocol.signature import load_signing_key, new_signing_key

COORDINATOR = new_signing_key()
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(
        tmp_path_factory.mktemp("ca") / "authority", "brain-mri", "a long passphrase", NOW
    )


def invitation_for(authority: Authority, site: str = "hospital-a", expires: int = 1 << 33) -> Invitation:
    token = new_token()
    public = enrolment_key(token).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    knocking = issue_client_certificate(authority, "enrol-0011223344556677", public, NOW)
    unsigned = Invitation(
        format=1,
        federation="brain-mri",
        site=site,
        broker_host="broker.example.org",
        broker_port=8883,
        coordinator_key=COORDINATOR.public_key.hex(),
        authority_sha256=certificate_fingerprint(authority.certificate).hex(),
        bundle="cd" * 32,
        made=int(NOW.timestamp()),
        expires=expires,
        token=token.hex(),
        authority=authority.certificate_pem.decode(),
        certificate=knocking.decode(),
    )
    return sign_invitation(unsigned, COORDINATOR)


def asked(kit: Kit, invitation: Invitation) -> None:
    make_kit(kit, invitation, Path("images"), Path("bundle"), Path())
    make_request(kit, invitation, 400, "0.2")


def approval(authority: Authority, kit: Kit, **changes: object) -> bytes:
    received = pending_request(kit)
    request = x509.load_der_x509_csr(received.request.certificate_request).public_bytes(Encoding.PEM)
    pem = issue_client_certificate(authority, received.request.site, request, NOW)
    certificate = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    roster = found("brain-mri", bytes(32), COORDINATOR, 1).with_entry(
        Admitted("hospital-a", received.request.public_key, bytes(32), 2**33, 400, "Ada"), COORDINATOR, 2
    )
    answer = Answer("brain-mri", "hospital-a", received.digest, True, "", certificate, roster.encoded)
    return encode_answer(msgspec.structs.replace(answer, **changes), COORDINATOR)


def test_an_approval_completes_the_kit(tmp_path: Path, authority: Authority) -> None:
    kit, invitation = Kit(tmp_path / "hospital-a"), invitation_for(authority)
    asked(kit, invitation)
    assert not kit.approved_by(invitation)

    take_answer(kit, invitation, approval(authority, kit))

    assert kit.approved_by(invitation)
    configuration = read_configuration(kit.configuration, SiteConfiguration)
    assert configuration.site.name == "hospital-a"
    assert configuration.site.aggregator_key == COORDINATOR.public_key.hex()
    assert tls_context(configuration.broker.relative_to(kit.folder)) is not None
    assert not kit.credentials.asked_path.exists()


def test_keys_are_for_their_owner_only(tmp_path: Path, authority: Authority) -> None:
    kit, invitation = Kit(tmp_path / "hospital-a"), invitation_for(authority)
    asked(kit, invitation)
    take_answer(kit, invitation, approval(authority, kit))

    for path in (kit.invitation, kit.state / "site.key", kit.credentials.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kit.state.stat().st_mode) == 0o700


def test_the_request_shows_the_keys_and_hides_their_private_halves(
    tmp_path: Path, authority: Authority
) -> None:
    kit, invitation = Kit(tmp_path / "hospital-a"), invitation_for(authority)
    asked(kit, invitation)
    received = pending_request(kit)

    assert received.holds(bytes.fromhex(invitation.token))
    assert received.request.public_key == load_signing_key(kit.state / "site.key").public_key
    assert (kit.state / "site.key").read_bytes() not in received.encoded
    assert x509.load_der_x509_csr(received.request.certificate_request).is_signature_valid


def test_a_kit_that_was_interrupted_keeps_its_keys_and_its_request(
    tmp_path: Path, authority: Authority
) -> None:
    kit, invitation = Kit(tmp_path / "hospital-a"), invitation_for(authority)
    asked(kit, invitation)
    kept = ("site.key", "tls-request.pem", "request", "ca.pem")
    before = [(kit.state / name).read_bytes() for name in kept]

    make_kit(kit, invitation, None, None, Path())

    assert [(kit.state / name).read_bytes() for name in kept] == before


def test_what_the_operator_edited_stays(tmp_path: Path, authority: Authority) -> None:
    kit, invitation = Kit(tmp_path / "hospital-a"), invitation_for(authority)
    asked(kit, invitation)
    edited = kit.configuration.read_text().replace("port = 8883", "port = 443")
    kit.configuration.write_text(edited)

    make_kit(kit, invitation, Path("other"), Path("bundle"), Path())

    assert kit.configuration.read_text() == edited


def test_a_refusal_says_why_and_the_next_request_is_another(tmp_path: Path, authority: Authority) -> None:
    kit, invitation = Kit(tmp_path / "hospital-a"), invitation_for(authority)
    asked(kit, invitation)
    refusal = approval(authority, kit, accepted=False, reason="whose box is this?", certificate=b"")

    with pytest.raises(InvalidInputError, match="whose box is this"):
        take_answer(kit, invitation, refusal)
    assert not kit.approved_by(invitation)
    asked(kit, invitation)
    with pytest.raises(MessageError, match="another request"):
        take_answer(kit, invitation, refusal)


def test_an_answer_to_another_request_or_with_another_certificate_changes_nothing(
    tmp_path: Path, authority: Authority
) -> None:
    kit, other = Kit(tmp_path / "a"), Kit(tmp_path / "b")
    invitation, another = invitation_for(authority), invitation_for(authority)
    asked(kit, invitation)
    asked(other, another)
    stranger = create_authority(tmp_path / "stranger", "brain-mri", "a long passphrase", NOW)

    for wrong in (approval(authority, other), approval(stranger, kit), approval(authority, kit)[:-1]):
        with pytest.raises(MessageError):
            take_answer(kit, invitation, wrong)
    assert not kit.approved_by(invitation)


def test_a_new_invitation_after_one_that_expired_keeps_the_keys(tmp_path: Path, authority: Authority) -> None:
    kit = Kit(tmp_path / "hospital-a")
    asked(kit, invitation_for(authority, expires=1))
    key, later = (kit.state / "site.key").read_bytes(), invitation_for(authority)

    asked(kit, later)

    assert (kit.state / "site.key").read_bytes() == key
    assert pending_request(kit).holds(bytes.fromhex(later.token))


def test_the_kit_of_another_site_is_not_overwritten(tmp_path: Path, authority: Authority) -> None:
    kit = Kit(tmp_path / "kit")
    asked(kit, invitation_for(authority))
    with pytest.raises(InvalidInputError, match=r"kit of hospital-a .* --folder"):
        make_kit(kit, invitation_for(authority, site="hospital-b"), Path("images"), Path("bundle"), Path())


def test_an_invitation_that_expired_is_refused_before_anything_is_made(
    tmp_path: Path, authority: Authority
) -> None:
    path = tmp_path / "invitation.toml"
    path.write_text(invitation_text(invitation_for(authority, expires=86400)))
    invitation = read_invitation_file(path)
    with pytest.raises(InvalidInputError, match=r"expired at 1970-01-02 00:00 UTC, and it is 20"):
        require_open(invitation, "invitation", time.time())


def test_a_bundle_is_looked_for_beside_the_invitation(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kit, invitation, mail = Kit(tmp_path / "hospital-a"), invitation_for(authority), tmp_path / "mail"
    with pytest.raises(InvalidInputError, match=r"--bundle.*cdcdcdcd"):
        make_kit(kit, invitation, Path("images"), None, mail)
    (mail / "bundle").mkdir(parents=True)
    (mail / "bundle" / "manifest.json").write_text("{}")
    make_kit(kit, invitation, Path("images"), None, mail)
    assert read_configuration(kit.configuration, SiteConfiguration).site.bundle == str(mail / "bundle")


def test_a_site_that_was_a_member_asks_anew_with_a_new_invitation(
    tmp_path: Path, authority: Authority
) -> None:
    """As after a revocation: until the answer is here, the kit as it was is no member's."""
    kit, first, second = Kit(tmp_path / "hospital-a"), invitation_for(authority), invitation_for(authority)
    asked(kit, first)
    take_answer(kit, first, approval(authority, kit))
    assert kit.approved_by(first)
    assert not kit.approved_by(second)
    certificate = kit.credentials.certificate()

    asked(kit, second)
    assert not kit.approved_by(second)
    take_answer(kit, second, approval(authority, kit))

    assert kit.approved_by(second)
    assert kit.credentials.certificate() != certificate

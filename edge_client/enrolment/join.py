"""From an invitation to a site that may start: the kit, a look at the box, the request, the answer."""

import logging
import time
from importlib.metadata import version
from pathlib import Path

from fedmedclip.edge_client.doctor.examination import examine
from fedmedclip.edge_client.doctor.finding import State
from fedmedclip.edge_client.doctor.table import print_table
from fedmedclip.edge_client.enrolment.kit import (
    Kit,
    knocking_credentials,
    make_kit,
    make_request,
    pending_request,
    read_invitation_file,
    take_answer,
)
from fedmedclip.edge_client.enrolment.knocking import knock
from fedmedclip.edge_client.enrolment.recorded import RecordedEnrolment
from fedmedclip.edge_client.images.dataset import load_dataset
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.bundle.signature import require_signer
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.enrolment.invitation import Invitation, require_open
from fedmedclip.protocol.errors import BundleError, InvalidInputError, MessageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file, path_fault
from fedmedclip.protocol.signature import fingerprint
from fedmedclip.protocol.state_folder import claim_state_folder

log = logging.getLogger("fedmedclip.join")

_MOST_ANSWER_BYTES = 1 << 26


def join(
    invitation_file: Path,
    *,
    folder: Path | None,
    data: Path | None,
    bundle: Path | None,
    request_file: Path | None,
    answer_file: Path | None,
    anyway: bool,
) -> Path | None:
    """Make a site of this box, as far as it goes now; return its configuration once it may start.

    With `request_file` the request is written there, for e-mail or USB, and None returned; with `answer_file`
    the answer is read from there. Otherwise both go over the broker. `anyway`: also where the doctor finds
    the box unfit. Raises InvalidInputError, BundleError or LinkError with what to do.
    """
    invitation = read_invitation_file(invitation_file)
    kit = Kit(folder or Path(invitation.site))
    if kit.approved_by(invitation):
        log.info("%s is a member of %s already", invitation.site, invitation.federation)
        return kit.configuration
    if answer_file is None:
        # An answer that comes as a file may come late.
        require_open(invitation, f"invitation {invitation_file}", time.time())
    make_kit(kit, invitation, data, bundle, invitation_file.parent)
    with claim_state_folder(kit.state), RecordedEnrolment(kit.state) as record:
        configuration = read_configuration(kit.configuration, SiteConfiguration)
        if not kit.request.exists():
            samples = _examined(kit, configuration, invitation, anyway)
            make_request(kit, invitation, samples, version("fedmedclip-edge"))
        request = pending_request(kit)
        log.info(
            "the key of %s is %s; the coordinator may ask you for it, to know that it is yours",
            invitation.site, fingerprint(request.request.public_key).hex(),
        )  # fmt: skip
        if request_file is not None:
            record.left("", request.encoded)
            write_new_file(request_file, request.encoded)
            return None
        if answer_file is not None:
            _read_answer(kit, invitation, answer_file, record)
        else:
            knock(
                configuration.broker.relative_to(kit.folder.resolve()),
                knocking_credentials(kit, invitation),
                invitation,
                request.encoded,
                lambda encoded: take_answer(kit, invitation, encoded),
                record,
            )
        (kit.state / "knocking.pem").unlink(missing_ok=True)
    log.info("%s is a member of %s", invitation.site, invitation.federation)
    return kit.configuration


def _examined(kit: Kit, configuration: SiteConfiguration, invitation: Invitation, anyway: bool) -> int:
    """Have the doctor look at the box, and return how many labelled images it has."""
    folder = beside(kit.configuration, configuration.site.bundle)
    if fault := path_fault(folder, "bundle"):
        raise InvalidInputError(f"bundle {folder}: {fault}")
    bundle = open_bundle(folder)
    if bundle.digest.hex() != invitation.bundle:
        raise InvalidInputError(
            f"bundle {folder} has digest {bundle.digest.hex()[:16]}, the invitation is for "
            f"{invitation.bundle[:16]}; copy the federation's bundle"
        )
    try:
        require_signer(folder, bytes.fromhex(invitation.coordinator_key))
    except BundleError as error:
        advice = "where the coordinator has a new key, ask for a new invitation"
        raise BundleError(f"{error}; {advice}") from error
    findings = examine(None, kit.configuration, with_broker=False)
    fit = all(finding.state is not State.BAD for finding in findings)
    print_table(findings, fit)
    if not fit and not anyway:
        raise InvalidInputError(
            "the box is not fit as it is; mend what is marked bad and give the same command, or add --anyway"
        )
    data = beside(kit.configuration, configuration.site.data)
    return max(
        1,
        len(
            load_dataset(
                data,
                bundle.manifest.class_names,
                settings=configuration.images,
                group_column=configuration.split.group_column,
            ).images
        ),
    )


def _read_answer(kit: Kit, invitation: Invitation, path: Path, record: RecordedEnrolment) -> None:
    if fault := path_fault(path, "file"):
        raise InvalidInputError(f"--answer {path}: {fault}")
    with open_regular_file(path) as file:
        encoded = file.read(_MOST_ANSWER_BYTES)
    record.came("", encoded)
    try:
        take_answer(kit, invitation, encoded)
    except MessageError as error:
        raise InvalidInputError(f"--answer {path}: {error}") from error

"""`fedmedclip federation revoke`, `renew`, `list`, `limit`: what becomes of members."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.aggregator.enrolment.command_line import (
    HERE,
    FolderOption,
    JsonOption,
    PassphraseOption,
    SiteArgument,
    federation_in,
    passphrase_for,
    say,
    tell,
    with_folder,
)

if TYPE_CHECKING:
    from fedmedclip.aggregator.enrolment.folder import FederationFolder


def revoke_command(
    site: SiteArgument,
    reason: Annotated[str, typer.Option(help="Why, as it stands in the roster.")],
    folder: FolderOption = HERE,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a site be a member no more: its next message is refused, at aggregator and broker."""
    from fedmedclip.aggregator.enrolment.membership import revoke_certificates, revoke_member

    opened, now = federation_in(folder), time.time()
    roster = revoke_member(opened, site, reason, now)
    facts = {"site": site, "records": len(roster.records), "revocation_list": None}
    if not as_json:
        # At once: what comes next may fail, and the site is revoked all the same.
        say(f"{site} is a member no more; the roster has {len(roster.records)} records")
    passphrase = _passphrase_if_any(opened, passphrase_file)
    if passphrase is None:
        tell(
            as_json,
            facts,
            "its certificate is not on the revocation list yet, which needs the passphrase: fedmedclip "
            f"federation renew{with_folder(folder)}",
        )
        return
    with opened.changing():
        revoke_certificates(opened, passphrase, now)
    revocations = opened.broker / "crl.pem"
    tell(
        as_json,
        facts | {"revocation_list": revocations},
        f"its certificates are on the revocation list; where the broker runs on another machine, copy "
        f"{revocations} there, and send it SIGHUP",
    )


def renew_command(
    site: Annotated[
        str | None, typer.Argument(metavar="[SITE]", help="A member that waits. Default: all there is to do.")
    ] = None,
    folder: FolderOption = HERE,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do what waits for the passphrase: certificates of members, of aggregator and broker, revocations."""
    from fedmedclip.aggregator.enrolment.renewal import renew_all

    opened = federation_in(folder)
    done = renew_all(opened, passphrase_for(opened, passphrase_file), time.time(), site)
    lines = done or ["nothing waits, and no certificate is in the last third of its time"]
    tell(as_json, {"done": done}, *lines)


def list_command(folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Show who is a member, and who was: keys, certificates, weights, when it was last heard."""
    from fedmedclip.aggregator.enrolment.tables import print_members

    print_members(federation_in(folder), as_json=as_json)


def limit_command(
    site: SiteArgument,
    samples: Annotated[int, typer.Argument(min=1, max=1_000_000_000, help="So many images at most.")],
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Change how much a member's updates weigh at most."""
    from fedmedclip.aggregator.enrolment.membership import limit_weight

    limit_weight(federation_in(folder), site, samples, time.time())
    facts = {"site": site, "most_samples": samples}
    tell(as_json, facts, f"{site} weighs at most as {samples} images from now on")


def _passphrase_if_any(folder: "FederationFolder", file: Path | None) -> str | None:
    from fedmedclip.aggregator.enrolment.passphrase import (
        find_passphrase,
        is_interactive,
        required_passphrase,
    )

    if is_interactive():
        return required_passphrase(file, folder.passphrase_file)
    return find_passphrase(file, folder.passphrase_file)

"""`fedmedclip federation invite`, `requests`, `approve`, `refuse`: who becomes a member."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.aggregator.enrolment.command_line import (
    HERE,
    ByOption,
    FolderOption,
    JsonOption,
    PassphraseOption,
    SamplesOption,
    SiteArgument,
    federation_in,
    login_name,
    passphrase_for,
    tell,
    with_folder,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import checked

RequestArgument = Annotated[
    str, typer.Argument(metavar="REQUEST", help="The request's number, its first digits, or the site's name.")
]

AnswerOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write the answer to a file too, for e-mail or USB.",
        callback=checked("--output", "output file"),
    ),
]


def invite_command(
    site: SiteArgument,
    folder: FolderOption = HERE,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it is good: 7d, 12h, 30m; at most 90d.")
    ] = None,
    most_samples: SamplesOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write. Default: SITE-invitation.toml, here.",
            callback=checked("--output", "output file"),
        ),
    ] = None,
    by: ByOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one small file with which one hospital can ask to join. Give it away as you would a password."""
    from fedmedclip.aggregator.enrolment.invitations import expiry_in_words, invite
    from fedmedclip.aggregator.enrolment.settings import read_lifetime
    from fedmedclip.protocol.enrolment.invitation import invitation_text
    from fedmedclip.protocol.new_files import write_new_file
    from fedmedclip.protocol.paths import path_fault

    opened = federation_in(folder)
    target = output or Path(f"{site}-invitation.toml")
    if fault := path_fault(target, "output file"):
        raise InvalidInputError(f"--output {target}: {fault}")
    kept = invite(
        opened,
        site,
        passphrase_for(opened, passphrase_file),
        time.time(),
        invited_by=by or login_name(),
        lifetime=None if expires is None else read_lifetime(expires),
        most_samples=most_samples,
    )
    write_new_file(target, invitation_text(kept.invitation).encode(), private=True)
    tell(
        as_json,
        {"file": target, "number": kept.number, "site": site, "expires": kept.invitation.expires},
        f"{target}: invitation {kept.number} to {site}, until {expiry_in_words(kept.invitation.expires)}",
        "whoever has the file can ask to join in that name; when the site has asked:",
        f"  fedmedclip federation requests{with_folder(folder)}",
    )


def requests_command(folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Show who asks to join, and which invitations are open."""
    from fedmedclip.aggregator.enrolment.tables import print_requests

    print_requests(federation_in(folder), time.time(), as_json=as_json, where=with_folder(folder))


def approve_command(
    request: Annotated[
        str,
        typer.Argument(
            metavar="[REQUEST]",
            help="The request's number, its first digits, or the site's name.",
        ),
    ] = "",
    folder: FolderOption = HERE,
    most_samples: SamplesOption = None,
    request_file: Annotated[
        Path | None,
        typer.Option(
            help="A request that came as a file, by e-mail or USB.",
            callback=checked("--request-file", "file"),
        ),
    ] = None,
    output: AnswerOutput = None,
    by: ByOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the site of a request a member. It fetches the answer over the broker, or gets it as a file."""
    from fedmedclip.aggregator.enrolment.decisions import approve, read_request_file
    from fedmedclip.protocol.new_files import write_new_file

    opened = federation_in(folder)
    if not request and request_file is None:
        raise InvalidInputError("say which request: its number or the site's name, or --request-file FILE")
    approval = approve(
        opened,
        request,
        passphrase_for(opened, passphrase_file),
        time.time(),
        approved_by=by or login_name(),
        most_samples=most_samples,
        encoded=None if request_file is None else read_request_file(request_file),
        where="the request" if request_file is None else str(request_file),
    )
    if output is not None:
        write_new_file(output, approval.answer)
    lines = [
        f"{approval.site} is a member: it weighs at most as {approval.most_samples} images; the roster has "
        f"{len(approval.roster.records)} records"
    ]
    if output is not None:
        lines.append(f"give it the answer {output}")
    elif not approval.fetchable:
        lines.append(
            "its invitation has expired, so it cannot fetch the answer: give it as a file, --output FILE"
        )
    facts = {
        "site": approval.site,
        "most_samples": approval.most_samples,
        "records": len(approval.roster.records),
        "answer": output,
        "fetchable": approval.fetchable,
    }
    tell(as_json, facts, *lines)


def refuse_command(
    request: RequestArgument,
    folder: FolderOption = HERE,
    reason: Annotated[str, typer.Option(help="What the site is told.")] = "",
    output: AnswerOutput = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse a request, or take an invitation back that nobody has used."""
    from fedmedclip.aggregator.enrolment.decisions import refuse
    from fedmedclip.protocol.new_files import write_new_file

    kept, answer = refuse(federation_in(folder), request, time.time(), reason)
    facts = {"site": kept.invitation.site, "number": kept.number, "taken_back": answer is None}
    if answer is None:
        tell(as_json, facts, f"invitation {kept.number} to {kept.invitation.site} is taken back")
        return
    if output is not None:
        write_new_file(output, answer)
    facts["answer"] = output
    tell(as_json, facts, f"the request of {kept.invitation.site} is refused, and its invitation used up")

"""`fedmedclip federation`: found a federation at the centre, and decide who is a member."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from fedmedclip.aggregator.enrolment.folder import FederationFolder, FederationSettings
    from fedmedclip.aggregator.enrolment.settings import FoundingFile

federation_app = typer.Typer(
    no_args_is_help=True, help="Found a federation at the centre, and decide who is a member."
)

FolderOption = Annotated[
    Path,
    typer.Option(
        "--folder", "-f", help="The federation's folder, of `federation init`.",
        callback=checked("--folder", "folder", "`fedmedclip federation init` makes one"),
    ),
]  # fmt: skip
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File whose first line is the certificate authority's passphrase; else the environment variable "
        "FEDMEDCLIP_CA_PASSPHRASE, or the terminal.",
        callback=checked("--passphrase-file", "file"),
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", help="Who decides, as it stands in the roster. Default: your login name."),
]
RequestArgument = Annotated[
    str, typer.Argument(metavar="REQUEST", help="The request's number, its first digits, or the site's name.")
]
SiteArgument = Annotated[str, typer.Argument(help="Name of the site.")]
SamplesOption = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000_000, help="The site's updates weigh as so many images at most."),
]
HERE = Path()


@federation_app.command("init")
def init_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="New folder; what else lies in it is left alone.", callback=checked("FOLDER", "new folder")
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The federation's name.")] = None,
    broker: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="Where sites find the broker. Default port: 8883."),
    ] = None,
    broker_name: Annotated[
        list[str] | None, typer.Option(help="A further name or address of the broker; may be repeated.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="The federation's bundle, which is signed; it may follow.",
            callback=checked("--bundle", "bundle"),
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Rounds of the first run.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with these values: name, broker, broker_names, bundle, rounds, passphrase_file, "
            "plugin, user, broker_folder, invitation_days, certificate_days, broker_certificate_days.",
            callback=checked("--config", "file"),
        ),
    ] = None,
    passphrase_file: PassphraseOption = None,
    plugin: Annotated[
        Path | None,
        typer.Option(help="mosquitto_dynamic_security.so on the broker's machine. Default: as it is here."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="The system's user as whom the broker runs. Default: who calls.")
    ] = None,
    broker_folder: Annotated[
        Path | None,
        typer.Option(help="Where the folder broker/ will lie, when it is copied to another machine."),
    ] = None,
) -> None:
    """Found a federation: keys, certificate authority, broker, aggregator.toml and roster, in one folder.

    What is missing is asked for on a terminal. With --passphrase-file the aggregator reads the passphrase
    there too, and renews certificates by itself. Stopped half way, give it again.
    """
    from fedmedclip.aggregator.authority.broker_files import BrokerPlace
    from fedmedclip.aggregator.enrolment import founding
    from fedmedclip.aggregator.enrolment.passphrase import required_passphrase
    from fedmedclip.aggregator.enrolment.settings import read_founding_file

    founding.refuse_existing(folder)
    file = read_founding_file(config)
    settings = _settings(
        file,
        name or file.name or _asked("Name of the federation", "--name"),
        broker or file.broker or _asked("Host, or HOST:PORT, where sites find the broker", "--broker"),
        broker_name or [],
    )
    passphrase_file = passphrase_file or (Path(file.passphrase_file) if file.passphrase_file else None)
    place = BrokerPlace(
        settings.broker_port,
        plugin or (Path(file.plugin) if file.plugin else None),
        user or file.user,
        broker_folder or (Path(file.broker_folder) if file.broker_folder else None),
    )
    wanted = founding.Founding(
        settings,
        required_passphrase(passphrase_file, new=True),
        bundle or (Path(file.bundle) if file.bundle else None),
        rounds or file.rounds or 30,
        place,
        passphrase_file,
    )
    made, finished = founding.found_federation(folder, wanted, datetime.now(UTC))
    _say_what_comes_next(made, folder, wanted.bundle, finished)


@federation_app.command("invite")
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
) -> None:
    """Write one small file with which one hospital can ask to join. Give it away as you would a password."""
    from fedmedclip.aggregator.enrolment.invitations import expiry_in_words, invite
    from fedmedclip.aggregator.enrolment.settings import read_lifetime
    from fedmedclip.protocol.enrolment.invitation import invitation_text
    from fedmedclip.protocol.new_files import write_new_file
    from fedmedclip.protocol.paths import path_fault

    opened = _opened(folder)
    target = output or Path(f"{site}-invitation.toml")
    if fault := path_fault(target, "output file"):
        raise _wrong(f"--output {target}: {fault}")
    kept = invite(
        opened,
        site,
        _passphrase(opened, passphrase_file),
        _now(),
        invited_by=by or _who(),
        lifetime=None if expires is None else read_lifetime(expires),
        most_samples=most_samples,
    )
    write_new_file(target, invitation_text(kept.invitation).encode(), private=True)
    _print(
        f"{target}: invitation {kept.number} to {site}, until {expiry_in_words(kept.invitation.expires)}",
        "whoever has the file can ask to join in that name; when the site has asked:",
        f"  fedmedclip federation requests{_where(folder)}",
    )


@federation_app.command("requests")
def requests_command(folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Show who asks to join, and which invitations are open."""
    from fedmedclip.aggregator.enrolment.tables import print_requests

    print_requests(_opened(folder), _now(), as_json=as_json, where=_where(folder))


@federation_app.command("approve")
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
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the answer to a file too, for e-mail or USB.",
            callback=checked("--output", "output file"),
        ),
    ] = None,
    by: ByOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Make the site of a request a member. It fetches the answer over the broker, or gets it as a file."""
    from fedmedclip.aggregator.enrolment.decisions import approve, read_request_file
    from fedmedclip.protocol.new_files import write_new_file

    opened = _opened(folder)
    if not request and request_file is None:
        raise _wrong("say which request: its number or the site's name, or --request-file FILE")
    approval = approve(
        opened,
        request,
        _passphrase(opened, passphrase_file),
        _now(),
        approved_by=by or _who(),
        most_samples=most_samples,
        encoded=None if request_file is None else read_request_file(request_file),
        where="the request" if request_file is None else str(request_file),
    )
    if output is not None:
        write_new_file(output, approval.answer)
    _print(
        f"{approval.site} is a member: it weighs at most as {approval.most_samples} images; the roster has "
        f"{len(approval.roster.records)} records"
    )
    if output is not None:
        _print(f"give it the answer {output}")
    elif not approval.fetchable:
        _print("its invitation has expired, so it cannot fetch the answer: give it as a file, --output FILE")


@federation_app.command("refuse")
def refuse_command(
    request: RequestArgument,
    folder: FolderOption = HERE,
    reason: Annotated[str, typer.Option(help="What the site is told.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the answer to a file too.",
            callback=checked("--output", "output file"),
        ),
    ] = None,
) -> None:
    """Refuse a request, or take an invitation back that nobody has used."""
    from fedmedclip.aggregator.enrolment.decisions import refuse
    from fedmedclip.protocol.new_files import write_new_file

    kept, answer = refuse(_opened(folder), request, _now(), reason)
    if answer is None:
        _print(f"invitation {kept.number} to {kept.invitation.site} is taken back")
        return
    if output is not None:
        write_new_file(output, answer)
    _print(f"the request of {kept.invitation.site} is refused, and its invitation used up")


@federation_app.command("revoke")
def revoke_command(
    site: SiteArgument,
    reason: Annotated[str, typer.Option(help="Why, as it stands in the roster.")],
    folder: FolderOption = HERE,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Let a site be a member no more: its next message is refused, at aggregator and broker."""
    from fedmedclip.aggregator.enrolment.membership import revoke_certificates, revoke_member

    opened, now = _opened(folder), _now()
    roster = revoke_member(opened, site, reason, now)
    _print(f"{site} is a member no more; the roster has {len(roster.records)} records")
    passphrase = _passphrase_if_any(opened, passphrase_file)
    if passphrase is None:
        _print(
            "its certificate is not on the revocation list yet, which needs the passphrase: fedmedclip "
            f"federation renew{_where(folder)}"
        )
        return
    with opened.changing():
        revoke_certificates(opened, passphrase, now)
    _print(
        f"its certificates are on the revocation list; where the broker runs on another machine, copy "
        f"{opened.broker / 'crl.pem'} there, and send it SIGHUP"
    )


@federation_app.command("renew")
def renew_command(
    site: Annotated[
        str | None, typer.Argument(metavar="[SITE]", help="A member that waits. Default: all there is to do.")
    ] = None,
    folder: FolderOption = HERE,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Do what waits for the passphrase: certificates of members, of aggregator and broker, revocations."""
    from fedmedclip.aggregator.enrolment.renewal import renew_all

    opened = _opened(folder)
    done = renew_all(opened, _passphrase(opened, passphrase_file), _now(), site)
    _print(*(done or ["nothing waits, and no certificate is in the last third of its time"]))


@federation_app.command("list")
def list_command(folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Show who is a member, and who was: keys, certificates, weights, when it was last heard."""
    from fedmedclip.aggregator.enrolment.tables import print_members

    print_members(_opened(folder), as_json=as_json)


@federation_app.command("limit")
def limit_command(
    site: SiteArgument,
    samples: Annotated[int, typer.Argument(min=1, max=1_000_000_000, help="So many images at most.")],
    folder: FolderOption = HERE,
) -> None:
    """Change how much a member's updates weigh at most."""
    from fedmedclip.aggregator.enrolment.membership import limit_weight

    limit_weight(_opened(folder), site, samples, _now())
    _print(f"{site} weighs at most as {samples} images from now on")


@federation_app.command("rotate-key")
def rotate_key_command(folder: FolderOption = HERE) -> None:
    """Sign with a new key from now on. The old one signs that, and sites follow by themselves."""
    from fedmedclip.aggregator.enrolment.membership import rotate_key

    opened = _opened(folder)
    roster, bundle = rotate_key(opened, _now())
    _print(f"the coordinator's key is {roster.coordinator_key.hex()} now; back up {opened.key_file}")
    if bundle is not None:
        _print(f"bundle {bundle} is signed with it; give new sites that copy")


@federation_app.command("roster")
def roster_command(
    file: Annotated[
        Path | None,
        typer.Argument(help="A roster's file. Default: the federation's.", callback=checked("FILE", "file")),
    ] = None,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="Take FILE over, a hospital's copy: after an old backup was restored."),
    ] = False,
) -> None:
    """Verify a roster and print its records."""
    from fedmedclip.aggregator.enrolment.roster_file import adopt as take_over
    from fedmedclip.aggregator.enrolment.roster_file import read_roster_file
    from fedmedclip.aggregator.enrolment.tables import print_roster

    if adopt and file is None:
        raise _wrong("--adopt takes over a file: fedmedclip federation roster FILE --adopt")
    roster = _opened(folder).roster() if file is None else read_roster_file(file)
    if not adopt:
        print_roster(roster, as_json=as_json)
        return
    ours, aside = take_over(_opened(folder), roster)
    _print(
        f"the roster has {len(roster.records)} records now, {len(ours.records)} were here, which are kept in "
        f"{aside}; an aggregator that runs has to be started again"
    )


def _settings(file: "FoundingFile", name: str, broker: str, names: list[str]) -> "FederationSettings":
    from fedmedclip.aggregator.enrolment.folder import FederationSettings
    from fedmedclip.aggregator.enrolment.settings import split_broker

    host, port = split_broker(broker)
    return FederationSettings(
        name,
        host,
        port,
        [*names, *file.broker_names],
        file.invitation_days,
        file.certificate_days,
        file.broker_certificate_days,
    )


def _say_what_comes_next(made: "FederationFolder", folder: Path, bundle: Path | None, finished: bool) -> None:
    name = made.settings.name
    _print(
        f"finished what an earlier call began: {name}, in {folder}" if finished
        else f"founded {name} in {folder}; the coordinator's key is {made.key().public_key.hex()}",
        "keep the passphrase, and a copy of the folder, somewhere else; then:",
        f"  mosquitto -c {folder / 'broker' / 'mosquitto.conf'}",
    )  # fmt: skip
    if bundle is None and not finished:
        _print(
            f"  fedmedclip export --classes classes.toml --model MODEL --out {folder / 'bundle'}",
            f"  fedmedclip bundle sign {folder / 'bundle'} --key {made.key_file}",
        )
    _print(
        f"  fedmedclip aggregator --config {folder / 'aggregator.toml'}",
        f"  fedmedclip federation invite SITE --folder {folder}",
    )


def _opened(folder: Path) -> "FederationFolder":
    from fedmedclip.aggregator.enrolment.folder import open_folder

    return open_folder(folder)


def _passphrase(folder: "FederationFolder", file: Path | None) -> str:
    from fedmedclip.aggregator.enrolment.passphrase import required_passphrase

    return required_passphrase(file, folder.passphrase_file)


def _passphrase_if_any(folder: "FederationFolder", file: Path | None) -> str | None:
    from fedmedclip.aggregator.enrolment.passphrase import (
        find_passphrase,
        is_interactive,
        required_passphrase,
    )

    if is_interactive():
        return required_passphrase(file, folder.passphrase_file)
    return find_passphrase(file, folder.passphrase_file)


def _asked(words: str, option: str) -> str:
    from fedmedclip.aggregator.enrolment.passphrase import is_interactive

    if not is_interactive():
        raise _wrong(f"{option} is missing; give it, or name a file with it: --config FILE")
    return str(typer.prompt(words))


def _wrong(line: str) -> Exception:
    from fedmedclip.protocol.errors import InvalidInputError

    return InvalidInputError(line)


def _where(folder: Path) -> str:
    return "" if folder == HERE else f" --folder {folder}"


def _print(*lines: str) -> None:
    for line in lines:
        print(visible(line))


def _now() -> float:
    return time.time()


def _who() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number without a name.
        return "coordinator"

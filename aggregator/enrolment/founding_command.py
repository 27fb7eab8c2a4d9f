"""`fedmedclip federation init`: found a federation, with what a file, the options and the terminal say."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.aggregator.enrolment.command_line import JsonOption, PassphraseOption, say
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import checked

if TYPE_CHECKING:
    from fedmedclip.aggregator.enrolment.folder import FederationFolder, FederationSettings
    from fedmedclip.aggregator.enrolment.settings import FoundingFile


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
    as_json: JsonOption = False,
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
    if not as_json:
        _say_what_comes_next(made, folder, wanted.bundle, finished)
        return
    from fedmedclip.protocol.json_output import print_json

    print_json(
        {
            "federation": made.settings.name,
            "folder": folder,
            "coordinator_key": made.key().public_key.hex(),
            "key_file": made.key_file,
            "finished_earlier_call": finished,
        }
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
    say(
        f"finished what an earlier call began: {name}, in {folder}" if finished
        else f"founded {name} in {folder}; the coordinator's key is {made.key().public_key.hex()}",
        "keep the passphrase, and a copy of the folder, somewhere else; then:",
        f"  mosquitto -c {folder / 'broker' / 'mosquitto.conf'}",
    )  # fmt: skip
    if bundle is None and not finished:
        say(
            f"  fedmedclip export --classes classes.toml --model MODEL --out {folder / 'bundle'}",
            f"  fedmedclip bundle sign {folder / 'bundle'} --key {made.key_file}",
        )
    say(
        f"  fedmedclip aggregator --config {folder / 'aggregator.toml'}",
        f"  fedmedclip federation invite SITE --folder {folder}",
    )


def _asked(words: str, option: str) -> str:
    from fedmedclip.aggregator.enrolment.passphrase import is_interactive

    if not is_interactive():
        raise InvalidInputError(f"{option} is missing; give it, or name a file with it: --config FILE")
    return str(typer.prompt(words))

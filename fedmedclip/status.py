"""`fedmedclip status`: how a federation stands, for whoever may look at it and from wherever."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.protocol.paths import checked

if TYPE_CHECKING:
    from fedmedclip.aggregator.federation_status import FederationStatus
    from fedmedclip.aggregator.observer import Vantage

EXIT_CODES = (
    "Exit codes: 0 the run goes on or is over as it should; 1 somebody should look at it (it is paused, a "
    "round is overdue, a site is late, away, refused or cannot take part, a certificate ends within 14 days, "
    "somebody floods, the aggregator does not run before the end); 2 the status cannot be read."
)


def status_command(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Configuration of the aggregator (it is asked, or where it does not run its state is read), "
            "of a site, or of an observer with [observer] and [broker] (what the broker retains).",
            callback=checked("--config", "file", "`fedmedclip init` writes an example"),
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of a broker without TLS and password, in place of --config."),
    ] = None,
    federation: Annotated[str | None, typer.Option(help="With --broker: the federation's name.")] = None,
    key: Annotated[
        str | None,
        typer.Option(help="With --broker: the coordinator's public key, or a file with it."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of the aggregator's page: https://HOST:PORT.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="With --address: file with the page's token.", callback=checked("--token-file", "file")
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help="With --address: the authority of its certificate.", callback=checked("--ca-file", "file")
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            help="With --address: PEM file with own certificate and key, for a page that asks for one.",
            callback=checked("--certificate", "file"),
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs; with --watch a line per change.")
    ] = False,
) -> None:
    """Say how the federation stands: rounds, sites, bytes, versions, certificates, what needs attention."""
    from fedmedclip.aggregator.page_address import PageAddress
    from fedmedclip.protocol.errors import InvalidInputError

    if sum(given is not None for given in (config, broker, address)) != 1:
        raise InvalidInputError("say whom to ask, one of --config FILE, --broker HOST:PORT, --address URL")
    if address is None and (token_file or ca_file or certificate):
        raise InvalidInputError("--token-file, --ca-file and --certificate are for --address")
    if broker is None and (federation or key):
        raise InvalidInputError("--federation and --key are for --broker; a configuration names its own")
    if address is not None:
        _show(PageAddress(address, token_file, ca_file, certificate).read, watch, as_json)
    elif broker is not None:
        with _observing(_vantage_of(broker, federation, key)) as read:
            _show(read, watch, as_json)
    else:
        assert config is not None
        with _reading(config) as read:
            _show(read, watch, as_json)


def _show(read: "Callable[[], FederationStatus]", again: bool, as_json: bool) -> None:
    from fedmedclip.aggregator import status_watch
    from fedmedclip.aggregator.status_table import print_status

    if again:
        raise typer.Exit(status_watch.watch(read, lines=as_json))
    status = read()
    if as_json:
        print(status_watch.as_json(status))
    else:
        print_status(status)
    raise typer.Exit(status_watch.exit_code(status))


@contextmanager
def _reading(config: Path) -> "Iterator[Callable[[], FederationStatus]]":
    """Give what reads the status by a configuration, whoever's it is."""
    from fedmedclip.aggregator.observer import ObserverConfiguration, Vantage
    from fedmedclip.edge_client.site.configuration import SiteConfiguration
    from fedmedclip.protocol.configuration import read_configuration, read_toml
    from fedmedclip.protocol.link.settings import check_secrets

    tables = read_toml(config, "configuration")
    if "site" not in tables and "observer" not in tables:
        yield lambda: _of_aggregator(config)
        return
    if "site" in tables:
        site = read_configuration(config, SiteConfiguration)
        name, key, settings = site.site.federation, site.site.aggregator_key, site.broker
    else:
        observer = read_configuration(config, ObserverConfiguration)
        name, key, settings = observer.observer.federation, observer.observer.aggregator_key, observer.broker
    settings = settings.relative_to(config.resolve().parent)
    check_secrets(settings)
    with _observing(Vantage(settings, name, None if key is None else bytes.fromhex(key))) as read:
        yield read


def _of_aggregator(config: Path) -> "FederationStatus":
    """Return the status by the state of an aggregator, which runs or not."""
    import msgspec

    from fedmedclip.aggregator.attention import needing_attention
    from fedmedclip.aggregator.configuration import AggregatorConfiguration
    from fedmedclip.aggregator.control import read_status
    from fedmedclip.aggregator.enrolment.certificate_ends import certificate_ends
    from fedmedclip.aggregator.enrolment.folder import open_folder
    from fedmedclip.protocol.configuration import beside, read_configuration

    status = read_status(config)
    roster = read_configuration(config, AggregatorConfiguration).federation.roster
    if status.source != "state" or roster is None:
        return status
    folder = open_folder(beside(config, roster).parent)
    ends = certificate_ends(folder, folder.roster())
    return needing_attention(msgspec.structs.replace(status, certificates=ends))


@contextmanager
def _observing(vantage: "Vantage") -> "Iterator[Callable[[], FederationStatus]]":
    from fedmedclip.aggregator.observer import Observer

    with Observer(vantage) as observer:
        yield observer.look


def _vantage_of(broker: str, federation: str | None, key: str | None) -> "Vantage":
    from fedmedclip.aggregator.observer import Vantage
    from fedmedclip.protocol.bundle.signature import read_public_key
    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.protocol.link.settings import LinkSettings, split_host_port
    from fedmedclip.protocol.topics import check_name

    if federation is None:
        raise InvalidInputError("--broker needs --federation NAME")
    host, port = split_host_port(broker, "--broker")
    pinned = None if key is None else read_public_key(key, "--key")
    return Vantage(LinkSettings(host=host, port=port), check_name("federation", federation), pinned)

"""The federation of the demo: aggregator and sites as real processes, from the first round to the last."""

import secrets
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.protocol import topics
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.pages.settings import ADDRESS_FILE
from fedmedclip.simulation.demo.settings import DemoSettings, Phases
from fedmedclip.simulation.demo.steps import Move, Steps
from fedmedclip.simulation.demo.summary import newest_version
from fedmedclip.simulation.federation.folder import FederationFolder
from fedmedclip.simulation.processes.commands import Running, all_ended, running, wait_for_all
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)


def federate(
    settings: DemoSettings,
    folder: FederationFolder,
    bundle: Path,
    broker: LinkSettings,
    phases: Phases,
    steps: Steps,
    logs: Path,
    console: Console,
    lasting: ExitStack,
) -> list[Running]:
    """Let the federation run; return its processes. The aggregator's may still show its page."""
    # A broker that serves others too may still hold the retained messages of an earlier demo.
    federation = f"demo-{secrets.token_hex(4)}"
    aggregator = settings.out / "aggregator"
    write_aggregator_configuration(
        aggregator / "aggregator.toml",
        federation=federation,
        bundle=bundle,
        method=settings.method,
        rounds=settings.rounds_played,
        sites=len(folder.sites),
        seed=settings.seed,
        broker=broker,
        codec=settings.codec,
        page=settings.page,
    )
    page_stays = ["--page-stays", str(settings.page_stays_seconds)]
    commands = {
        "aggregator": ["aggregator", "--config", str(aggregator / "aggregator.toml"), "--once", *page_stays]
    }
    for site, data in folder.sites.items():
        configuration = settings.out / "sites" / site / "site.toml"
        write_site_configuration(
            configuration,
            federation=federation,
            site=site,
            bundle=bundle,
            data=data,
            seed=settings.seed,
            broker=broker,
            # On one machine nothing leaves, and sites of one's own data may be as small as they like.
            floors=DEFAULT_FLOORS if settings.data is None else NO_FLOORS,
            groups=folder.group_file,
        )
        commands[site] = ["site", "--config", str(configuration), "--once"]
    joined = steps.begin(f"features: {len(folder.sites)} sites run the encoder once")
    trained: Move | None = None
    started = time.monotonic()
    first_round_at: float | None = None
    is_told = False
    processes = lasting.enter_context(running(commands, logs))
    while not (all_ended(processes) or (is_told and _only_a_page_is_left(aggregator, processes))):
        is_told = is_told or (settings.page and _tell_address(aggregator, console))
        version = newest_version(aggregator)
        if first_round_at is None and (version > 0 or _all_joined(settings.out, folder)):
            first_round_at = time.monotonic()
            joined(1, 1)
            trained = steps.begin("rounds: local training, MQTT, aggregation", settings.rounds_played)
        if trained:
            trained(version, settings.rounds_played)
        time.sleep(0.1)
    if trained:
        trained(newest_version(aggregator), settings.rounds_played)
    _forget_retained(federation, folder, broker)
    phases.seconds["features"] = (first_round_at or time.monotonic()) - started
    phases.seconds["rounds"] = time.monotonic() - (first_round_at or started)
    return processes


def _tell_address(aggregator: Path, console: Console) -> bool:
    """Say where the aggregator's page is, once it is there; return whether it was said."""
    try:
        address = (aggregator / ADDRESS_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return False
    if address:
        console.print(f"watch it live: {address}", markup=False, highlight=False, soft_wrap=True)
    return bool(address)


def _only_a_page_is_left(aggregator: Path, processes: list[Running]) -> bool:
    """Whether the run is over for all, and the aggregator is there only for whoever looks at its page."""
    _, *sites = processes
    return not (aggregator / ADDRESS_FILE).exists() and all_ended(sites)


def wait_for_whoever_looks(processes: list[Running], console: Console) -> None:
    """Return when the processes of `federate` have ended: all at once where nobody looks at the page."""
    moment = time.monotonic() + 1.0
    while not (ended := all_ended(processes)) and time.monotonic() < moment:
        time.sleep(0.1)
    if ended:
        return
    console.print("the page stays while you look at it; Ctrl-C ends it", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        wait_for_all(processes)


def _forget_retained(federation: str, folder: FederationFolder, broker: LinkSettings) -> None:
    """Leave nothing behind on the broker: an empty retained message deletes the one before."""
    statuses = [topics.status(federation, site) for site in folder.sites]
    with Link(broker, client_id=f"{federation}-cleanup") as link:
        for topic in (topics.plan(federation), topics.head(federation), *statuses):
            link.publish(topic, b"", retain=True)


def _all_joined(out: Path, folder: FederationFolder) -> bool:
    return all((out / "sites" / site / "heads.safetensors").exists() for site in folder.sites)

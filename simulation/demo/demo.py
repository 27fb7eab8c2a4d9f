"""`fedmedclip demo`: a whole federation on this machine, with the real commands in real processes.

images -> export -> broker, aggregator and sites -> rounds -> offline predictions -> summary
"""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import method_named, rounds_for
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.link.settings import LinkSettings, split_host_port
from fedmedclip.protocol.near_names import did_you_mean
from fedmedclip.protocol.pages.settings import ADDRESS_FILE
from fedmedclip.protocol.signature import load_signing_key
from fedmedclip.protocol.trust.decision import trust_of_user
from fedmedclip.protocol.trust.pins import pin_where_possible
from fedmedclip.protocol.visible import is_utf8
from fedmedclip.simulation.demo.steps import Move, Steps, shown_steps
from fedmedclip.simulation.demo.summary import newest_version, print_summary, summarise, write_summary
from fedmedclip.simulation.federation.folder import FederationFolder, open_federation_folder
from fedmedclip.simulation.phantoms.phantoms import write_federation
from fedmedclip.simulation.phantoms.small_clip import small_clip
from fedmedclip.simulation.preconditions import (
    require_broker,
    require_disk,
    require_loopback,
    require_packages,
)
from fedmedclip.simulation.processes.brokers import EmbeddedBroker, MosquittoBroker, find_mosquitto
from fedmedclip.simulation.processes.commands import all_ended, run_command, running
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)

_WITHOUT_SMALL_CLIP = "--model or --bundle"
_MARKER = ".fedmedclip-demo"
_USUAL_ROUNDS = 10
# With images, states and logs; a model of one's own may be a ViT-B/32 in fp32, with its text tower 600 MB.
_DISK_MEGABYTES, _DISK_MEGABYTES_WITH_MODEL = 100, 1000


@dataclass(frozen=True)
class DemoSettings:
    """What the demo is asked to do; `data`, `model` and `bundle` None: what the package brings along.

    With `page` the aggregator has its page, and the demo says where.
    """

    out: Path
    data: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    bundle: Path | None = None
    method: str = "fedmedclip"
    rounds: int | None = None
    broker: str = "embedded"
    codec: str | None = None
    seed: int = 0
    page: bool = True

    @property
    def rounds_played(self) -> int:
        """The number of rounds, also where none is named."""
        return rounds_for(self.method, self.rounds, _USUAL_ROUNDS)


@dataclass
class Phases:
    """Wall-clock seconds of each phase, by name, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Time a phase."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def run_demo(settings: DemoSettings, console: Console) -> None:
    """Run the federation and write everything into `settings.out`.

    Raises FedMedClipError when something cannot be used or a process fails.
    """
    phases = Phases()
    started = time.monotonic()
    _check(settings)
    _prepare(settings.out)
    logs = settings.out / "logs"
    with shown_steps(console) as steps:
        folder = _images(settings, phases, steps)
        bundle = _bundle(settings, folder, phases, steps, logs)
        with broker_for(settings.broker) as broker:
            _federate(settings, folder, bundle, broker, phases, steps, logs, console)
        _trust_sites(settings.out, folder)
        _predict(settings, folder, bundle, phases, steps, logs)
    with phases.measured("summary"):
        summary = summarise(settings.out, settings.method, settings.seed, folder, bundle)
    phases.seconds["total"] = time.monotonic() - started
    summary["phases"] = {name: round(seconds, 2) for name, seconds in phases.seconds.items()}
    write_summary(settings.out, summary)
    print_summary(console, settings.out, summary, bundle)


def _check(settings: DemoSettings) -> None:
    """Refuse what cannot work before anything is made, above all before anything is deleted."""
    packages = ["torch", *(("open_clip", "onnx") if settings.bundle is None else ())]
    packages += ["amqtt"] if settings.broker == "embedded" else []
    require_packages("the demo", "demo", *packages)
    for option, path in (("--out", settings.out), ("--data", settings.data), ("--bundle", settings.bundle)):
        if path is not None and not is_utf8(str(path.absolute())):
            raise InvalidInputError(
                f"{option} {path}: the path is not UTF-8, and no configuration holds another"
            )
    if settings.data is not None:
        open_federation_folder(settings.data)
    if settings.bundle is not None:
        replace(trust_of_user(), without="").require_bundle(open_bundle(settings.bundle))
    elif settings.model is None:
        small_clip(_WITHOUT_SMALL_CLIP)
    method_named(settings.method)
    if settings.codec is not None:
        delta_codec_named(settings.codec)
    match settings.broker:
        case "embedded":
            require_loopback()
        case "mosquitto":
            find_mosquitto()
            require_loopback()
        case address:
            if ":" not in address:
                raise InvalidInputError(
                    f"--broker is {address!r}; expected host:port, embedded or mosquitto"
                    + did_you_mean(address, ("embedded", "mosquitto"))
                )
            require_broker(address)
    require_disk(settings.out, _DISK_MEGABYTES if settings.model is None else _DISK_MEGABYTES_WITH_MODEL)


def _prepare(out: Path) -> None:
    """Make an empty output folder; only what an earlier demo wrote is ever deleted."""
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"output {out} is a file; give a folder with --out")
    if out.is_dir() and any(out.iterdir()):
        if not (out / _MARKER).exists():
            raise InvalidInputError(f"output folder {out} is not empty; give another with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()


def _images(settings: DemoSettings, phases: Phases, steps: Steps) -> FederationFolder:
    if settings.data is not None:
        return open_federation_folder(settings.data)
    move = steps.begin("images: brain-like phantoms of three hospitals", None)
    with phases.measured("images"):
        folder = settings.out / "images"
        write_federation(folder, settings.seed, on_image=move)
    return open_federation_folder(folder)


def _bundle(
    settings: DemoSettings, folder: FederationFolder, phases: Phases, steps: Steps, logs: Path
) -> Path:
    if settings.bundle is not None:
        return settings.bundle
    move = steps.begin("export: CLIP to an ONNX bundle")
    bundle = settings.out / "bundle"
    model = settings.model or small_clip(_WITHOUT_SMALL_CLIP)
    arguments = ["export", "--model", model, "--classes", str(folder.path), "--out", str(bundle)]
    # Heads, codecs and rounds are what a demo compares; its figures shall not depend on how int8 was chosen.
    arguments += ["--precision", "fp32"]
    if settings.pretrained is not None:
        arguments += ["--pretrained", settings.pretrained]
    with phases.measured("export"):
        run_command("export", arguments, logs)
    move(1, 1)
    return bundle


@contextmanager
def broker_for(choice: str) -> Iterator[LinkSettings]:
    """Give the address of the broker: one of our own (`embedded`, `mosquitto`) or HOST:PORT."""
    match choice:
        case "embedded":
            with EmbeddedBroker() as embedded:
                yield LinkSettings(host=embedded.host, port=embedded.port, protocol=embedded.protocol)
        case "mosquitto":
            with MosquittoBroker() as mosquitto:
                yield LinkSettings(host=mosquitto.host, port=mosquitto.port, protocol=mosquitto.protocol)
        case _:
            host, port = split_host_port(choice, "--broker")
            yield LinkSettings(host=host, port=port)


def _federate(
    settings: DemoSettings,
    folder: FederationFolder,
    bundle: Path,
    broker: LinkSettings,
    phases: Phases,
    steps: Steps,
    logs: Path,
    console: Console,
) -> None:
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
    commands = {"aggregator": ["aggregator", "--config", str(aggregator / "aggregator.toml"), "--once"]}
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
    is_told = not settings.page
    with running(commands, logs) as processes:
        while not all_ended(processes):
            is_told = is_told or _tell_address(aggregator, console)
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


def _tell_address(aggregator: Path, console: Console) -> bool:
    """Say where the aggregator's page is, once it is there; return whether it was said."""
    try:
        address = (aggregator / ADDRESS_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return False
    if address:
        console.print(f"watch it live: {address}", markup=False, highlight=False, soft_wrap=True)
    return bool(address)


def _trust_sites(out: Path, folder: FederationFolder) -> None:
    """Let this user's `predict` take the heads of the demo's sites, as those of a site of their own."""
    for site in folder.sites:
        state = out / "sites" / site
        pin_where_possible(load_signing_key(state / "site.key").public_key, f"demo's site, {state.resolve()}")


def _forget_retained(federation: str, folder: FederationFolder, broker: LinkSettings) -> None:
    """Leave nothing behind on the broker: an empty retained message deletes the one before."""
    statuses = [topics.status(federation, site) for site in folder.sites]
    with Link(broker, client_id=f"{federation}-cleanup") as link:
        for topic in (topics.plan(federation), topics.head(federation), *statuses):
            link.publish(topic, b"", retain=True)


def _all_joined(out: Path, folder: FederationFolder) -> bool:
    return all((out / "sites" / site / "heads.safetensors").exists() for site in folder.sites)


def _predict(
    settings: DemoSettings,
    folder: FederationFolder,
    bundle: Path,
    phases: Phases,
    steps: Steps,
    logs: Path,
) -> None:
    """Classify images that no site trained on, as a clinic's device would: no broker, no PyTorch."""
    if folder.global_test is None:
        return
    move = steps.begin("predictions: offline, images of no site")
    heads = settings.out / "sites" / next(iter(folder.sites)) / "heads.safetensors"
    # This demo wrote both, and goes on where no key can be kept.
    arguments = ["predict", "--insecure", "--bundle", str(bundle), "--heads", str(heads)]
    arguments.append(str(folder.global_test))
    with phases.measured("predictions"):
        run_command("predict", [*arguments, "--output", str(settings.out / "predictions.csv")], logs)
    move(1, 1)

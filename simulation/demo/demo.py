"""`fedmedclip demo`: a whole federation on this machine, with the real commands in real processes.

images -> export -> broker, aggregator and sites -> rounds -> offline predictions -> summary
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import method_named
from fedmedclip.protocol.link.settings import LinkSettings, split_host_port
from fedmedclip.protocol.near_names import did_you_mean
from fedmedclip.protocol.signature import load_signing_key
from fedmedclip.protocol.trust.decision import trust_of_user
from fedmedclip.protocol.trust.pins import pin_where_possible
from fedmedclip.protocol.visible import is_utf8
from fedmedclip.simulation.demo.federate import federate, wait_for_whoever_looks
from fedmedclip.simulation.demo.settings import DemoSettings, Phases
from fedmedclip.simulation.demo.steps import Steps, shown_steps
from fedmedclip.simulation.demo.summary import print_summary, summarise, write_summary
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
from fedmedclip.simulation.processes.commands import run_command

_WITHOUT_SMALL_CLIP = "--model or --bundle"
_MARKER = ".fedmedclip-demo"
# With images, states and logs; a model of one's own may be a ViT-B/32 in fp32, with its text tower 600 MB.
_DISK_MEGABYTES, _DISK_MEGABYTES_WITH_MODEL = 100, 1000


def run_demo(settings: DemoSettings, console: Console) -> None:
    """Run the federation and write everything into `settings.out`.

    Raises FedMedClipError when something cannot be used or a process fails.
    """
    phases = Phases()
    started = time.monotonic()
    _check(settings)
    _prepare(settings.out)
    logs = settings.out / "logs"
    with ExitStack() as lasting:
        with shown_steps(console) as steps:
            folder = _images(settings, phases, steps)
            bundle = _bundle(settings, folder, phases, steps, logs)
            broker = lasting.enter_context(broker_for(settings.broker))
            processes = federate(settings, folder, bundle, broker, phases, steps, logs, console, lasting)
            _trust_sites(settings.out, folder)
            _predict(settings, folder, bundle, phases, steps, logs)
        with phases.measured("summary"):
            summary = summarise(settings.out, settings.method, settings.seed, folder, bundle)
        phases.seconds["total"] = time.monotonic() - started
        summary["phases"] = {name: round(seconds, 2) for name, seconds in phases.seconds.items()}
        write_summary(settings.out, summary)
        print_summary(console, settings.out, summary, bundle)
        wait_for_whoever_looks(processes, console)


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


def _trust_sites(out: Path, folder: FederationFolder) -> None:
    """Let this user's `predict` take the heads of the demo's sites, as those of a site of their own."""
    for site in folder.sites:
        state = out / "sites" / site
        pin_where_possible(load_signing_key(state / "site.key").public_key, f"demo's site, {state.resolve()}")


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

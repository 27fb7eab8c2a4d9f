"""`fedmedclip init`: a commented example of each file that people write, to begin with."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.configuration.examples import filled_example

init_app = typer.Typer(
    name="init",
    help="Write a commented example of a configuration: site, aggregator, serve, observer or classes.",
    no_args_is_help=True,
)

PathArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[PATH]", help="The file to write, or the folder to write it to. Default: here."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]
BrokerOption = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where the broker listens.")]
BundleOption = Annotated[Path | None, typer.Option(help="Folder of the federation's bundle.")]


@init_app.command("site")
def init_site_command(
    path: PathArgument = None,
    federation: Annotated[str | None, typer.Option(help="The federation's name.")] = None,
    name: Annotated[str | None, typer.Option(help="This site's name.")] = None,
    broker: BrokerOption = None,
    data: Annotated[Path | None, typer.Option(help="Folder, CSV or archive of this site's images.")] = None,
    bundle: BundleOption = None,
    force: ForceOption = False,
) -> None:
    """Write an example of site.toml, with every setting and its default."""
    from fedmedclip.edge_client.site.configuration import SiteConfiguration

    target = _target(path, "site.toml", force)
    text = filled_example(
        "site.toml",
        {
            "federation": federation,
            "name": name,
            "bundle": _beside(target, bundle),
            "data": _beside(target, data),
            **_broker(broker),
        },
    )
    _write(target, text, SiteConfiguration)
    _say(target, f"fedmedclip doctor --config {target}", f"fedmedclip site --config {target}")


@init_app.command("aggregator")
def init_aggregator_command(
    path: PathArgument = None,
    federation: Annotated[str | None, typer.Option(help="The federation's name.")] = None,
    broker: BrokerOption = None,
    bundle: BundleOption = None,
    force: ForceOption = False,
) -> None:
    """Write an example of aggregator.toml, with every setting and its default."""
    from fedmedclip.aggregator.configuration import AggregatorConfiguration

    target = _target(path, "aggregator.toml", force)
    values = {"name": federation, "bundle": _beside(target, bundle), **_broker(broker)}
    _write(target, filled_example("aggregator.toml", values), AggregatorConfiguration)
    _say(target, f"fedmedclip aggregator --config {target}")


@init_app.command("observer")
def init_observer_command(
    path: PathArgument = None,
    federation: Annotated[str | None, typer.Option(help="The federation's name.")] = None,
    broker: BrokerOption = None,
    force: ForceOption = False,
) -> None:
    """Write an example of observer.toml, for `fedmedclip status` of who is neither centre nor site."""
    from fedmedclip.aggregator.observer import ObserverConfiguration

    target = _target(path, "observer.toml", force)
    text = filled_example("observer.toml", {"federation": federation, **_broker(broker)})
    _write(target, text, ObserverConfiguration)
    _say(target, f"fedmedclip status --config {target}")


@init_app.command("serve")
def init_serve_command(
    path: PathArgument = None,
    bundle: BundleOption = None,
    heads: Annotated[Path | None, typer.Option(help="The site's active heads, which are followed.")] = None,
    folder: Annotated[Path | None, typer.Option(help="The folder to watch for images.")] = None,
    force: ForceOption = False,
) -> None:
    """Write an example of serve.toml, with every setting and its default."""
    from fedmedclip.edge_client.serving.configuration import ServeConfiguration

    target = _target(path, "serve.toml", force)
    values = {
        "bundle": _beside(target, bundle),
        "heads": _beside(target, heads),
        "path": _beside(target, folder),
    }
    _write(target, filled_example("serve.toml", values), ServeConfiguration)
    _say(target, f"fedmedclip serve --config {target}")


@init_app.command("classes")
def init_classes_command(path: PathArgument = None, force: ForceOption = False) -> None:
    """Write an example of classes.toml: the prompts that stand for each class."""
    target = _target(path, "classes.toml", force)
    _write(target, filled_example("classes.toml", {}), None)
    _say(target, f"fedmedclip export --classes {target} --model MODEL --out bundle")


def _target(path: Path | None, name: str, force: bool) -> Path:
    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.protocol.paths import is_stream, path_fault

    target = Path(name) if path is None else path
    if target.is_dir():
        target = target / name
    if os.path.lexists(target) and not force and not is_stream(target):
        raise InvalidInputError(f"{target} exists; replace it with --force, or give another path")
    if fault := path_fault(target, "output file"):
        raise InvalidInputError(f"{target}: {fault}")
    return target


def _beside(target: Path, path: Path | None) -> str | None:
    """Return a path that was given in this folder as it is meant in the file: relative to the file's own."""
    if path is None or path.is_absolute():
        return None if path is None else str(path)
    folder = Path(os.path.realpath(path.parent))
    return os.path.relpath(folder / path.name, os.path.realpath(target.parent))


def _broker(address: str | None) -> dict[str, str | int | None]:
    if address is None:
        return {}
    from fedmedclip.protocol.link.settings import split_host_port

    host, port = split_host_port(address, "--broker")
    return {"host": host, "port": port}


def _write(target: Path, text: str, structure: type | None) -> None:
    """Write the file whole or not at all, when it is one that the commands would take."""
    from fedmedclip.protocol.configuration import convert, parse_toml
    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.protocol.new_files import write_new_file

    if structure is not None:
        convert(parse_toml(text, "with these options"), structure, "with these options")
    try:
        write_new_file(target, text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{target}: a path that is not UTF-8 cannot stand in it") from error


def _say(target: Path, *commands: str) -> None:
    from fedmedclip.protocol.paths import is_stream
    from fedmedclip.protocol.visible import visible

    # What was written to standard output is not mixed with words about it.
    where = sys.stderr if is_stream(target) else sys.stdout
    print(f"wrote {visible(target)}; look through it in an editor, then:", file=where)
    for command in commands:
        print(f"  {visible(command)}", file=where)

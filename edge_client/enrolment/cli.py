"""`fedmedclip join`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import LogFormatOption
from fedmedclip.protocol.console import LogFormat
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible


def join_command(
    invitation: Annotated[
        Path,
        typer.Argument(
            help="The file that the coordinator gave you.",
            callback=checked("INVITATION", "file"),
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder, CSV or archive of this site's images.", callback=checked("--data", "file or folder")
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="The federation's bundle; by default `bundle`, here or beside the invitation.",
            callback=checked("--bundle", "bundle"),
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where site.toml and keys are kept; by default a folder of the site's name."),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(
            "--request",
            help="Write the request to this file, for e-mail or USB, and end.",
            callback=checked("--request", "output file"),
        ),
    ] = None,
    answer: Annotated[
        Path | None,
        typer.Option("--answer", help="The coordinator's answer to that request, from e-mail or USB."),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Ask even where the doctor finds the box unfit.")
    ] = False,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Take part as soon as the approval is here.")
    ] = True,
    once: Annotated[bool, typer.Option("--once", help="End when the run is over.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Become a site of a federation by an invitation: make the keys, look at the box, ask, and start.

    The keys are made here and never leave. The request goes over the broker, or by --request and --answer as
    files. It may wait for the coordinator as long as it takes: stop it at any moment, give the same command
    again, and it goes on.
    """
    from fedmedclip.edge_client.enrolment.join import join
    from fedmedclip.edge_client.site.service import run_site
    from fedmedclip.protocol.console import log_to_terminal
    from fedmedclip.protocol.errors import InvalidInputError

    if request is not None and answer is not None:
        raise InvalidInputError("--request writes what --answer answers: give one after the other")
    log_to_terminal(verbose, log_format)
    configuration = join(
        invitation,
        folder=folder,
        data=data,
        bundle=bundle,
        request_file=request,
        answer_file=answer,
        anyway=anyway,
    )
    if configuration is None:
        print(visible(f"wrote {request}; send it to the coordinator, and when the answer is here:"))
        where = "" if folder is None else f" --folder {folder}"
        print(visible(f"  fedmedclip join {invitation} --answer ANSWER-FILE{where}"))
        return
    print("nothing is trained before this hospital approves the plan; once it is here:")
    for command in ("plan", "approve"):
        print(visible(f"  fedmedclip site {command} --config {configuration}"))
    if start:
        run_site(configuration, once=once)
    else:
        print(visible(f"to begin:  fedmedclip site --config {configuration}"))

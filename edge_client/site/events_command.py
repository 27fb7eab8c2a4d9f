"""`fedmedclip site events`."""

from datetime import datetime
from typing import Annotated

import typer

from fedmedclip.edge_client.site.command_line import DATABASE, ConfigOption, state_of


def events_command(
    config: ConfigOption,
    last: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what happened at this site, running or not: connected, trained, delivered, refused, and why."""
    from fedmedclip.edge_client.site.state import SiteState
    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.protocol.json_output import print_json
    from fedmedclip.protocol.visible import visible

    path = state_of(config) / DATABASE
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist: nothing has happened at this site yet")
    state = SiteState(path)
    try:
        events = state.events.newest(last)
    finally:
        state.close()
    if as_json:
        print_json({"events": events})
        return
    for event in events:
        when = datetime.fromtimestamp(event.at).strftime("%Y-%m-%d %H:%M:%S")
        print(visible(f"{when} {event.kind:<12} {event.words}"))

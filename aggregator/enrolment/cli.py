"""`fedmedclip federation`: found a federation at the centre, and decide who is a member."""

import typer

from fedmedclip.aggregator.enrolment.admission_commands import (
    approve_command,
    invite_command,
    refuse_command,
    requests_command,
)
from fedmedclip.aggregator.enrolment.founding_command import init_command
from fedmedclip.aggregator.enrolment.member_commands import (
    limit_command,
    list_command,
    renew_command,
    revoke_command,
)
from fedmedclip.aggregator.enrolment.roster_commands import roster_command, rotate_key_command

federation_app = typer.Typer(
    no_args_is_help=True, help="Found a federation at the centre, and decide who is a member."
)
federation_app.command("init")(init_command)
federation_app.command("invite")(invite_command)
federation_app.command("requests")(requests_command)
federation_app.command("approve")(approve_command)
federation_app.command("refuse")(refuse_command)
federation_app.command("revoke")(revoke_command)
federation_app.command("renew")(renew_command)
federation_app.command("list")(list_command)
federation_app.command("limit")(limit_command)
federation_app.command("rotate-key")(rotate_key_command)
federation_app.command("roster")(roster_command)

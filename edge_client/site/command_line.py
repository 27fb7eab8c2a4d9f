"""What the commands under `fedmedclip site` share."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.paths import checked

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        help="TOML configuration; `fedmedclip init site` writes one with every setting.",
        callback=checked("--config", "file", "`fedmedclip init site` writes an example"),
    ),
]
DATABASE = "site.db"


def state_of(config: Path) -> Path:
    """Return the folder of a site's state. Raises InvalidInputError for a configuration that is none."""
    from fedmedclip.edge_client.site.configuration import SiteConfiguration
    from fedmedclip.protocol.configuration import beside, read_configuration

    return beside(config, read_configuration(config, SiteConfiguration).site.state)

"""The configuration files that the demo writes: the same that an operator would write by hand."""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors
from fedmedclip.protocol.link.settings import LinkSettings

Tables = dict[str, dict[str, object]]


def write_aggregator_configuration(
    path: Path,
    *,
    federation: str,
    bundle: Path,
    method: str,
    rounds: int,
    sites: int,
    seed: int,
    broker: LinkSettings,
    codec: str | None = None,
    settings: Mapping[str, object] | None = None,
    training: Mapping[str, object] | None = None,
) -> None:
    """Write `aggregator.toml` for a federation in which every round waits for every site.

    `codec` is that of both directions; None leaves the default. `settings` are more of `[federation]`,
    `training` the table of that name.
    """
    codecs = {} if codec is None else {"uplink_codec": codec, "downlink_codec": codec}
    tables: Tables = {
        "federation": {
            "name": federation,
            "bundle": str(bundle.resolve()),
            "method": method,
            "rounds": rounds,
            "minimum_sites": sites,
            "round_timeout_seconds": 120.0,
            "seed": seed,
            "state": ".",
            **codecs,
            **(settings or {}),
        },
        "training": dict(training or {}),
        "broker": _broker(broker),
    }
    _write(path, tables)


def write_site_configuration(
    path: Path,
    *,
    federation: str,
    site: str,
    bundle: Path,
    data: Path,
    seed: int,
    broker: LinkSettings,
    insecure: bool = True,
    floors: Floors = DEFAULT_FLOORS,
    groups: Path | None = None,
    approve: str | None = "automatic",
) -> None:
    """Write `site.toml` with all of the site's state beside it; `groups` is a groups file.

    Every plan is approved, as whoever writes it starts the federation, too; `approve` "ask" asks, and
    None says nothing of it, for a site that knows of no policy.

    With `insecure` the site takes a bundle that nobody signed, as whoever wrote both knows where it is from.
    """
    tables: Tables = {
        "site": {
            "federation": federation,
            "name": site,
            "bundle": str(bundle.resolve()),
            "data": str(data.resolve()),
            "state": ".",
            **({"insecure": True} if insecure else {}),
        },
        **({} if approve is None else {"policy": {"approve": approve}}),
        "split": {"seed": seed, **({} if groups is None else {"groups": str(groups.resolve())})},
    }
    if floors != DEFAULT_FLOORS:
        tables["privacy"] = msgspec.to_builtins(floors)
    tables["broker"] = _broker(broker)
    _write(path, tables)


def _broker(broker: LinkSettings) -> dict[str, object]:
    return {"host": broker.host, "port": broker.broker_port, "protocol": broker.protocol}


def _write(path: Path, tables: Tables) -> None:
    lines = ["# Written by `fedmedclip demo`."]
    for table, values in tables.items():
        # A JSON string, number or boolean is also one in TOML.
        lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

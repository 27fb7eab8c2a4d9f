"""Which name a person probably meant."""

import pytest

from fedmedclip.protocol.near_names import did_you_mean, near_name, unknown_name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hots", "host"),
        ("prt", "port"),
        ("Ca-File", "ca_file"),
        ("keepalive", "keepalive_seconds"),
        ("zzz", None),
        ("", None),
        ("h" * 100_000, None),
    ],
)
def test_the_nearest_known_name(typed: str, meant: str | None) -> None:
    assert near_name(typed, ["host", "port", "ca_file", "keepalive_seconds"]) == meant


def test_the_line_about_an_unknown_name() -> None:
    line = unknown_name("codec", "lowrnk", ["lowrank", "sign"])
    assert line == "unknown codec 'lowrnk'; did you mean 'lowrank'? (known: lowrank, sign)"
    assert did_you_mean("lowrnk", []) == ""

"""Which name a person probably meant."""

import pytest

from fedmedclip.protocol.near_names import did_you_mean, near_name, quoted, spelling, unknown_name


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


@pytest.mark.parametrize(
    "name", ["no_tumour", "No Tumour", "no tumour ", "NO-TUMOUR", "no  tumour", "ｎｏ_tumour"]
)
def test_names_that_only_look_different_have_one_spelling(name: str) -> None:
    assert spelling(name) == "no-tumour"
    assert did_you_mean(f"{name} ", ["stroke", "no_tumour"]) == "; did you mean 'no_tumour'?"


def test_names_that_look_alike_are_shown_so_that_they_do_not() -> None:
    composed, decomposed, cyrillic = "caf\u00e9", "cafe\u0301", "str\u043eke"
    assert spelling(composed) == spelling(decomposed)
    assert (quoted(composed, decomposed), quoted(decomposed, composed)) == (r"'caf\xe9'", r"'cafe\u0301'")
    assert quoted(cyrillic, "stroke") == r"'str\u043eke'"
    assert quoted("café", "cafe") == "'café'"
    assert quoted("stroke ", "stroke") == "'stroke '"
    assert did_you_mean(decomposed, [composed]) == r"; did you mean 'caf\xe9'?"

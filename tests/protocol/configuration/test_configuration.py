"""What a person reads of a wrong configuration: file, table, key, what was found, what may stand there."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.configuration import read_configuration, require_paths
from fedmedclip.protocol.errors import InvalidInputError

SITE = "[site]\nfederation = 'f'\nname = 'a'\nbundle = 'bundle'\ndata = 'images'\n"
FEDERATION = "[federation]\nname = 'f'\nbundle = 'bundle'\nrounds = 3\n"


def refusal(folder: Path, content: str | bytes, structure: type = SiteConfiguration) -> str:
    """Write the file, read it, and return the one line that it is refused with, from the file's name on."""
    path = folder / "site.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInputError) as caught:
        read_configuration(path, structure)
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(f"configuration {path}")
    return line.removeprefix(f"configuration {folder}/")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[broker]\nhots = 'x'", "[broker] has no setting 'hots'; did you mean 'host'? (known: host, port,"),
        (
            "[broker]\nhots = 1\nprt = 2",
            "no settings 'hots' (did you mean 'host'?), 'prt' (did you mean 'port'?)",
        ),
        ("[brokr]\n", "there is no table [brokr]; did you mean [broker]? (known: [site], [split],"),
        ("seed = 1", "[site] has no setting 'seed'; it belongs to [split]"),
        ("[site.broker]\nhost = 'x'", "[site] has no setting 'broker'; [broker] is a table of its own"),
        (
            "[split]\nseed = -1",
            "[split] seed is -1 (a whole number); give a whole number from 0 to 9223372036854",
        ),
        ("[split]\nseed = '1'", '[split] seed is "1" (text); give a whole number from 0 to'),
        ("[split]\ntest = true", "[split] test is true; give a number of at least 0 and below 1"),
        ("[split]\ntest = nan", "split.test is nan, which is no number"),
        ("[split]\nseed = 9223372036854775808", "split.seed is 9223372036854775808, beyond 64 bits"),
        (
            "[split]\nvalidation = 0.5\ntest = 0.6",
            "[split] validation 0.5 and test 0.6 leave nothing to train on",
        ),
        ("ensemble = 'entrpy'", '"calibrated" or "entropy" or "method"; did you mean "entropy"?'),
        ("ensemble = 2020-01-01", "ensemble is 2020-01-01 (a date or time); give"),
        (
            "aggregator_key = 'ab'",
            'aggregator_key is "ab" (text); give a public key in quotes: 64 hexadecimal digits',
        ),
        ("uplink_codec = 'lowrnk'", "[site] uplink_codec: unknown codec 'lowrnk'; did you mean 'lowrank'?"),
        (
            "uplink_codec = 'lowrank:rnk=3'",
            "'lowrank' has no parameter rnk; did you mean 'rank'? (known: rank, bits, carry)",
        ),
        (
            "[images]\nwindow = [1, 2, 3]",
            "[images] window is [1, 2, 3] (a list); give a whole number from 1 to 1000, or",
        ),
        ("[broker]\nhost.name = 'x'", "[broker] host is a table; give text"),
        ("[broker]\nhost = 'mqtt://x'", "[broker] host is 'mqtt://x'; give a host name"),
        ("name = 'b'", "line 6, the last: this was given before: 'name = 'b''"),
        ("[site]\n", "line 6, column 6: this table was begun before: '[site]'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tmp_path: Path, text: str, line: str) -> None:
    assert line in refusal(tmp_path, SITE + text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "site.toml is empty; `fedmedclip init` writes one"),
        ("host = 'x'\n", "'host' stands outside of every table; it belongs to [broker] or [page]"),
        ("hots = 'x'\n", "'hots' stands outside of every table; did you mean 'host' of [broker]?"),
        ("[split]\n", "lacks the table [site] (with federation, name, bundle, data)"),
        (
            "[site]\nname = 'a'\n",
            "[site] lacks 'federation' (the federation's name) and 'bundle' (the bundle's",
        ),
        ("site = 3", "site is 3 (a whole number); site is a table, begun by a line [site]"),
        ("[[site]]\n", "site is [a table] (a list); site is a table"),
        ("[site\n", "line 1, column 6: Expected ']' at the end of a table declaration: '[site'"),
        ("[site]\nname = x", "line 2, column 8: not a value; text needs quotes: 'name = x'"),
        ("[site]\nname = 'x\n", "line 2, the last: the quotes are not closed: 'name = 'x'"),
        ('a = "C:\\data"', r"a \ in double quotes; write paths with / or in 'single quotes': 'a = "),
        (
            "a = 1 \a",
            r"line 1, column 7: Expected newline or end of document after a statement: 'a = 1 \x07'",
        ),
        (
            f"x = 1{' ' * 200}y{' ' * 200}",
            "column 206: Expected newline or end of document after a statement: ...'",
        ),
        ("a = " + "[" * 3000, "lists or tables are nested too deeply"),
        ("a = " + "9" * 5000, "too many digits"),
        (b"\xff\xfe[\0s\0", "site.toml is in UTF-16; save it as UTF-8"),
        ("[site]\n".encode("utf-16-be"), "site.toml is in UTF-16; save it as UTF-8"),
        ("[site]\n".encode("utf-32"), "site.toml is in UTF-32; save it as UTF-8"),
        (b"[site]\nname = 'H\xf4pital'", 'line 2: byte 16 (0xf4), after "name = \'H", is not UTF-8'),
        (b"\xef\xbb\xbf\xf4", "line 1: byte 3 (0xf4)"),
        (b"#" * (1 << 20) + b"\n", "has more than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert line in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rounds = 0", "rounds is 0 (a whole number); give a whole number from 1 to 1000000"),
        ("rounds = 'ten'", '[federation] rounds is "ten" (text); give a whole number from 1 to 1000000'),
        ("rounds = 3\n[sites]\na = 'AB'", '[sites] a is "AB" (text); give a public key in quotes: 64'),
        ("rounds = 3\n[sites]\nA = '" + "ab" * 32 + "'", "site name 'A' is not usable"),
        ("rounds = 3\ndownlink_codec = 'zip'", "[federation] downlink_codec: unknown codec 'zip'"),
        (
            "rounds = 3\nmethod = 'whitened-memory'\ndownlink_codec = 'lowrank:carry=0.5'",
            "[federation] downlink_codec: 'lowrank:carry=0.5' forgets a part of what it leaves out",
        ),
        (
            "rounds = 3\n[training]\nx = [1]",
            "[training] x is [1] (a list); give text of at most 64 characters",
        ),
        ("rounds = 3\n[training]\n" + "\n".join(f"a{i} = 1" for i in range(65)), "[training] holds too much"),
    ],
)
def test_the_aggregators_file_too(tmp_path: Path, text: str, line: str) -> None:
    text = FEDERATION.replace("rounds = 3\n", "") + text
    assert line in refusal(tmp_path, text, AggregatorConfiguration)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_other_line_ends_are_accepted(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(mark + SITE.replace("\n", "\r\n").encode())
    assert read_configuration(path, SiteConfiguration).site.name == "a"


def test_what_is_no_file_is_said_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "site.toml").touch()
    lines = {
        tmp_path / "sit.toml": "there is no such file; did you mean 'site.toml'?",
        tmp_path / "site.toml" / "x": "there is no such file",
        tmp_path: "is a folder, not a file",
        tmp_path / "pipe": "is a named pipe, not a file",
        tmp_path / "link": "is a link to what does not exist",
        tmp_path / ("x" * 300): "cannot be used (File name too long)",
        Path("/dev/zero"): "is a device, not a file",
        Path("a\0b"): "no NUL character",
    }
    for path, words in lines.items():
        with pytest.raises(InvalidInputError) as caught:
            read_configuration(path, SiteConfiguration)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "bundle = 'bundl'",
            "[site] bundle = \"bundl\": there is no such folder; did you mean 'bundle'? ({0}/bundl)",
        ),
        ("bundle = 'file'", '[site] bundle = "file": is a file, not a folder ({0}/file)'),
        ("bundle = '.'", '[site] bundle = ".": no bundle, for it has no manifest.json'),
        ("data = 'nothing'", '[site] data = "nothing": there is no such file or folder ({0}/nothing)'),
        ("data = 'pipe'", '[site] data = "pipe": is a named pipe, not a file or folder'),
        ("state = 'file'", '[site] state = "file": is a file, not a folder'),
        ("state = 'file/state'", '[site] state = "file/state": {0}/file is not a folder'),
        ("feature_store = 'images'", '[site] feature_store = "images": is a folder, not a file'),
        ("[broker]\ntls = true\nca_file = 'ca.pem'", '[broker] ca_file = "ca.pem": there is no such file'),
        (
            "[broker]\nusername = 'a'\npassword_file = 'images'",
            '[broker] password_file = "images": is a folder',
        ),
    ],
)
def test_a_path_is_named_with_its_setting(tmp_path: Path, setting: str, line: str) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    require_paths(path, read_configuration(path, SiteConfiguration))
    key = setting.partition(" ")[0]
    kept = [old for old in SITE.splitlines() if not old.startswith(f"{key} ")]
    path.write_text("\n".join([*kept, setting]))
    with pytest.raises(InvalidInputError) as caught:
        require_paths(path, read_configuration(path, SiteConfiguration))
    assert str(caught.value).startswith(f"{path}: {line.format(tmp_path)}")


words = st.sampled_from(
    ["site", "broker", "hots", "name", "seed", "window", "=", "[", "]", "[[", "]]", ".", ",", "'", '"', '"""',
     "{", "}", "\n", "\r", "#", "1", "-", "1e999", "inf", "nan", "0x", "true", "\\", "\ufeff", "\0", "\x85",
     "é", "1979-05-27", "\n[site]\n", "\n[broker]\n", SITE]
)  # fmt: skip
hostile = st.one_of(
    st.lists(words, max_size=30).map("".join).map(str.encode),
    st.binary(max_size=200),
    st.lists(st.sampled_from(["a.", "[a]\n", "a=", "[", "{a=", "1,"]), max_size=8).map(
        lambda parts: "".join(part * 400 for part in parts).encode()
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=hostile)
def test_whatever_stands_in_a_file_is_taken_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    try:
        read_configuration(path, SiteConfiguration)
        line = ""
    except InvalidInputError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 2000
    assert line or "site" in tomllib.loads(content.decode("utf-8-sig"))

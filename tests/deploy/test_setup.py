"""`deploy/setup.sh` into a folder in place of a machine: a layout that the units can use, no edit is lost."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.configuration import read_configuration
from tests import ROOT
from tests.conftest import missing

SETUP = ROOT / "deploy" / "setup.sh"
STATE = "/var/lib/fedmedclip"


@pytest.fixture(scope="module")
def tools() -> None:
    if shutil.which("systemd-sysusers") is None and os.geteuid() == 0:
        missing("systemd-sysusers is not installed")


@pytest.fixture
def machine(tools, tmp_path):
    """A folder that stands for a machine's root, with Mosquitto as Debian installs it."""
    root = tmp_path / "machine"
    (root / "etc" / "mosquitto" / "conf.d").mkdir(parents=True)
    (root / "etc" / "mosquitto" / "mosquitto.conf").write_text("include_dir /etc/mosquitto/conf.d\n")
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nmosquitto:x:4711:4712::/:/bin/false\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\nmosquitto:x:4712:\n")
    return root


def set_up(*arguments, **environment):
    done = subprocess.run(
        [SETUP, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, cwd="/"
    )
    return done.returncode, done.stdout, done.stderr


def files_of(root):
    """Return content, mode, owner and time of everything below a folder."""
    found = {}
    for path in root.rglob("*"):
        if path.name != ".pwd.lock":
            about = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            place = str(path.relative_to(root))
            found[place] = (
                content,
                oct(about.st_mode & 0o7777),
                about.st_uid,
                about.st_gid,
                about.st_mtime_ns,
            )
    return found


@pytest.mark.parametrize(
    ("part", "structure"),
    [("site", SiteConfiguration), ("aggregator", AggregatorConfiguration), ("serve", ServeConfiguration)],
)
def test_a_configuration_has_its_state_where_its_unit_may_write(machine, part, structure):
    code, said, problems = set_up(part, "--root", machine, "--no-install")
    assert (code, problems.count("setup.sh")) == (0, 0)
    configuration = read_configuration(machine / "etc" / "fedmedclip" / f"{part}.toml", structure)
    settings = getattr(configuration, "federation" if part == "aggregator" else part)
    assert settings.state == f"{STATE}/{part}-state"
    assert settings.bundle == f"{STATE}/bundle"
    if part == "serve":
        assert configuration.folder.path == f"{STATE}/images"
    else:
        assert part == "aggregator" or settings.data == f"{STATE}/images"
    unit = (machine / "etc/systemd/system" / f"fedmedclip-{part}.service").read_text()
    assert unit == (ROOT / "deploy" / f"fedmedclip-{part}.service").read_text()
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0] != "#")
    assert f"/var/lib/{lines['StateDirectory']}" == lines["WorkingDirectory"] == STATE
    assert lines["ExecStart"].endswith(f" --config /etc/fedmedclip/{part}.toml")
    assert f"in {lines['ExecStart'].split('/bin/')[0]}" in said


def test_other_examples_are_as_they_were(machine):
    """But for its paths, what is installed is the commented example."""
    set_up("site", "--root", machine, "--no-install")
    written = (machine / "etc/fedmedclip/site.toml").read_text().splitlines()
    example = (ROOT / "deploy/site.toml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(example, written, strict=True) if old != new]
    assert [re.split(r"[ #]+", old.lstrip("# "))[0] for old, _ in changed] == ["bundle", "data", "state"]
    assert [old.rpartition("#")[2] for old, _ in changed] == [new.rpartition("#")[2] for _, new in changed]


def test_the_service_can_follow_the_heads_of_a_site_on_the_same_machine(machine):
    for part in ("site", "serve"):
        code, said, _ = set_up(part, "--root", machine, "--no-install")
        assert code == 0
    assert "fedmedclip trust KEY" in said
    site, serve = (machine / "etc/fedmedclip" / f"{part}.toml" for part in ("site", "serve"))
    serve.write_text(serve.read_text().replace("# heads = ", "heads = "))
    state = read_configuration(site, SiteConfiguration).site.state
    assert read_configuration(serve, ServeConfiguration).serve.heads == f"{state}/heads.safetensors"


@pytest.mark.parametrize("part", ["site", "aggregator", "serve", "broker"])
def test_run_again_it_changes_nothing_and_says_so(machine, part):
    first = set_up(part, "--root", machine, "--no-install")
    before = files_of(machine)
    second = set_up(part, "--root", machine, "--no-install")
    assert (first[0], second[0]) == (0, 0)
    assert files_of(machine) == before
    done = [line for line in second[1].partition("\n\n")[0].splitlines() if not line.startswith("left out")]
    assert done
    assert all(line.startswith("as it is: ") for line in done)


@pytest.mark.parametrize("part", ["site", "aggregator", "serve", "broker"])
def test_a_dry_run_says_the_same_and_does_nothing(machine, part):
    before = files_of(machine)
    code, said, _ = set_up(part, "--root", machine, "--no-install", "--dry-run")
    assert (code, files_of(machine)) == (0, before)
    announcement, _, rest = said.partition("\n")
    assert "does nothing" in announcement
    _, really, _ = set_up(part, "--root", machine, "--no-install")
    if os.geteuid() == 0:
        assert rest == really
    assert files_of(machine) != before


def test_an_edited_file_is_kept_and_what_it_would_be_lies_beside(machine):
    set_up("site", "--root", machine, "--no-install")
    configuration = machine / "etc/fedmedclip/site.toml"
    unit = machine / "etc/systemd/system/fedmedclip-site.service"
    edited = configuration.read_text().replace("hospital-a", "hospital-z")
    configuration.write_text(edited)
    # What an older version of the script wrote, and nobody edited since, follows the new version.
    for written in (unit, machine / "opt/fedmedclip/examples/fedmedclip-site.service"):
        written.write_text("[Unit]\nDescription=of an older version\n")
    code, said, _ = set_up("site", "--root", machine, "--no-install")
    assert code == 0
    assert "kept: file /etc/fedmedclip/site.toml, which was edited" in said
    assert configuration.read_text() == edited
    assert unit.read_text() == (ROOT / "deploy/fedmedclip-site.service").read_text()
    # Nor does the next run take it for its own.
    set_up("site", "--root", machine, "--no-install")
    assert configuration.read_text() == edited


def test_a_file_that_was_there_before_is_kept(machine):
    configuration = machine / "etc/fedmedclip/aggregator.toml"
    configuration.parent.mkdir()
    configuration.write_text("# my own\n")
    assert set_up("aggregator", "--root", machine, "--no-install")[0] == 0
    assert configuration.read_text() == "# my own\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_whom_they_should_by_the_machines_own_numbers(machine):
    for arguments in (["site"], ["broker", "--passwords"]):
        assert set_up(*arguments, "--root", machine, "--no-install")[0] == 0
    users = {
        line.split(":")[0]: line.split(":") for line in (machine / "etc/passwd").read_text().splitlines()
    }
    assert users["fedmedclip"][5:] == [STATE, "/usr/sbin/nologin"]
    user, group = int(users["fedmedclip"][2]), int(users["fedmedclip"][3])
    found = files_of(machine)
    owners = {
        "etc/fedmedclip": ("0o750", 0, group),
        "etc/fedmedclip/site.toml": ("0o640", 0, group),
        "var/lib/fedmedclip": ("0o750", user, group),
        "etc/systemd/system/fedmedclip-site.service": ("0o644", 0, 0),
        "etc/mosquitto/federation.acl": ("0o600", 4711, 4712),
        "etc/mosquitto/passwords": ("0o600", 4711, 4712),
    }
    assert {place: found[place][1:4] for place in owners} == owners
    assert not [place for place in found if place.endswith(".partial")]


def test_the_broker_gets_a_piece_or_the_whole_as_it_is_installed(machine):
    set_up("broker", "--root", machine)
    text = (ROOT / "deploy/mosquitto.conf").read_text()
    assert (machine / "etc/mosquitto/conf.d/fedmedclip.conf").read_text() == text
    (machine / "etc/mosquitto/conf.d/fedmedclip.conf").unlink()
    (machine / "etc/mosquitto/mosquitto.conf").unlink()
    set_up("broker", "--passwords", "--root", machine)
    assert (machine / "etc/mosquitto/mosquitto.conf").read_text() == (
        ROOT / "deploy/mosquitto-passwords.conf"
    ).read_text()
    assert not (machine / "etc/mosquitto/conf.d/fedmedclip.conf").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root")
def test_the_command_is_installed_from_wheels_without_the_network(machine, tmp_path):
    """With a tiny distribution of the same name, on a machine that has this one's programs and libraries."""
    allowed = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, text=True
    )
    if allowed.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {allowed.stderr.strip()}")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels)
    # Its own folder for commands hides this machine's, into which nothing may be written.
    done = subprocess.run(
        [
            "unshare", "--mount", "sh", "-ec",
            'for place in /bin /lib /lib64 /usr /dev "$3"; do [ -e "$place" ] || continue; '
            'mkdir -p "$1$place"; mount --rbind "$place" "$1$place"; done; '
            'mount -t tmpfs none "$1/usr/local/bin"; mkdir "$1/python"; mount --bind "$4" "$1/python"; '
            '"$2" aggregator --root "$1" --offline "$3" --python "$5"; '
            '"$2" aggregator --root "$1" --offline "$3" --python "$5"; '
            'chroot "$1" /usr/local/bin/fedmedclip',
            "sh", machine, SETUP, wheels, sys.base_prefix, f"/python/bin/python3.{sys.version_info.minor}",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as it is: Python environment /opt/fedmedclip/venv" in done.stdout
    assert done.stdout.splitlines()[-1] == "the command is here"


def write_wheel(folder):
    """Write a wheel of a fedmedclip-edge that only says that it is there."""
    about = "fedmedclip_edge-1.0.dist-info"
    with zipfile.ZipFile(folder / "fedmedclip_edge-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fedmedclip_here.py", "def main():\n    print('the command is here')\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: fedmedclip-edge\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/entry_points.txt", "[console_scripts]\nfedmedclip = fedmedclip_here:main\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "say for which part"),
        (["hospital"], "unknown argument 'hospital'"),
        (["site", "broker"], "one part at a time"),
        (["site", "--root"], "--root needs a value"),
        (["site", "--root", "/no/such/folder"], "no such folder"),
        (["site", "--passwords"], "--passwords is for the broker"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_code_2(arguments, problem):
    code, said, problems = set_up(*arguments)
    assert (code, said) == (2, "")
    assert problem in problems.splitlines()[-1]


def test_a_broker_without_mosquitto_is_said(machine):
    shutil.rmtree(machine / "etc/mosquitto")
    code, _, problems = set_up("broker", "--root", machine)
    assert (code, "install Mosquitto first" in problems) == (2, True)


def test_help_names_every_option():
    code, said, _ = set_up("--help")
    options = set(re.findall(r"(--[a-z-]+)(?=[ )|])", SETUP.read_text().partition("while [ $# -gt 0 ]")[2]))
    assert code == 0
    assert {"--root", "--dry-run", "--no-install"} <= options
    assert {option for option in options if option not in said} == set()

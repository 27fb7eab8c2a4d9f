"""Execute deploy/Containerfile without a container engine, and try what it makes; needs root and debootstrap.

    python deploy/try_containerfile.py --work FOLDER --bundle FOLDER --image FILE [--wheels FOLDER]

The base image is what debootstrap makes of the same release (`--base` takes one that is there). Each RUN runs
in it by chroot, with namespaces of its own for mounts and processes; with `--wheels`, pip takes packages from
there alone. Then, as an engine would with `--read-only`, `--cap-drop all` and `no-new-privileges`: the root
read-only, the volume and /tmp writable, the user that USER names, no capability. So it says its version,
classifies an image, serves, passes its own HEALTHCHECK, and ends by its STOPSIGNAL.

What is not tried: layers, registries, limits of cgroups, and an engine's seccomp and networks.
"""

import argparse
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "deploy" / "Containerfile"
VOLUME = "/var/lib/fedmedclip"


@dataclass
class Stage:
    """What one FROM begins: its instructions in order, and what they set for the containers of it."""

    base: str
    name: str
    steps: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def stages_of(text: str) -> list[Stage]:
    """Return the stages of a Containerfile. Raises ValueError for an instruction that is not known here."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        instruction, _, rest = line.partition(" ")
        match instruction:
            case "FROM":
                base, _, name = rest.partition(" AS ")
                stages.append(Stage(base, name or str(len(stages))))
            case "RUN" | "COPY":
                stages[-1].steps.append((instruction, rest, dict(stages[-1].environment)))
            case "ENV":
                stages[-1].environment |= dict(word.split("=", 1) for word in shlex.split(rest))
            case "USER" | "WORKDIR" | "VOLUME" | "STOPSIGNAL" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                stages[-1].settings[instruction] = rest
            case _:
                raise ValueError(f"{line!r}: this instruction is not known here")
    return stages


def argv(words: str) -> list[str]:
    """Return the command of an instruction in its JSON form."""
    return json.loads(words[words.index("[") :])


def build(stages: list[Stage], options: argparse.Namespace) -> Path:
    """Execute the instructions, and return the folder that the last stage became."""
    folders: dict[str, Path] = {}
    for stage in stages:
        folder = folders[stage.name] = options.work / f"stage-{stage.name}"
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["cp", "-a", base(stage.base, options), folder], check=True)
        for instruction, rest, environment in stage.steps:
            said(f"{instruction} {rest}")
            if instruction == "RUN":
                run_in(folder, rest, environment, options.wheels)
            else:
                copy(rest, folder, folders)
    return folder


def base(image: str, options: argparse.Namespace) -> Path:
    """Return the folder of a base image such as debian:trixie-slim."""
    release = image.rpartition(":")[2].removesuffix("-slim")
    folder = options.base or options.work / f"base-{release}"
    if not folder.exists():
        said(f"debootstrap {release}")
        made = folder.with_suffix(".partial")
        shutil.rmtree(made, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", release, made], check=True, stdout=subprocess.DEVNULL
        )
        made.rename(folder)
    return folder


def run_in(folder: Path, command: str, environment: dict[str, str], wheels: Path | None) -> None:
    """RUN: as root, with the network's names and, where given, wheels in place of an index."""
    shutil.copyfile("/etc/resolv.conf", folder / "etc/resolv.conf")
    names = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", **environment}
    script = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev"'
    if wheels is not None:
        (folder / "wheels").mkdir(exist_ok=True)
        script += f' && mount --bind {shlex.quote(str(wheels))} "$1/wheels"'
        names |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    script += ' && root=$1 && shift && exec chroot "$root" env -i "$@"'
    subprocess.run(
        [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", folder,
            *(f"{name}={value}" for name, value in names.items()), "/bin/sh", "-c", command,
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if wheels is not None:
        (folder / "wheels").rmdir()


def copy(rest: str, folder: Path, folders: dict[str, Path]) -> None:
    """COPY, of files and whole folders, from the sources or from an earlier stage."""
    words = shlex.split(rest)
    origin = ROOT
    if words[0].startswith("--from="):
        origin = folders[words.pop(0).removeprefix("--from=")]
    *sources, target = words
    for source in sources:
        found, place = origin / source.lstrip("/"), folder / target.lstrip("/")
        if found.is_dir():
            shutil.copytree(found, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, place / found.name)


def container(root: Path, stage: Stage, options: argparse.Namespace, command: list[str]) -> list[str]:
    """Return what starts a command as a container of the image would, with a read-only root."""
    user, _, group = stage.settings["USER"].partition(":")
    script = (
        'mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && '
        'mount -t tmpfs tmpfs "$1/tmp" && mount --bind "$2" "$1/var/lib/fedmedclip" && '
        'mount --bind "$3" "$1/etc/fedmedclip" && mount -o remount,bind,ro "$1/etc/fedmedclip" && '
        'mount -o remount,bind,ro "$1" && root=$1 && shift 3 && exec chroot "$root" "$@"'
    )
    return [
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh",
        str(root), str(options.work / "volume"), str(options.work / "configuration"),
        "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
        "--bounding-set=-all", "--inh-caps=-all",
        "env", "-i", f"--chdir={stage.settings['WORKDIR']}", "FEDMEDCLIP_INSECURE=1",
        *(f"{name}={value}" for name, value in stage.environment.items()), *command,
    ]  # fmt: skip


def prepare(stage: Stage, options: argparse.Namespace, port: int) -> None:
    """Fill the volume with bundle and image, and the configuration."""
    for name in ("volume", "configuration"):
        shutil.rmtree(options.work / name, ignore_errors=True)
        (options.work / name).mkdir()
    shutil.copytree(options.bundle, options.work / "volume" / "bundle")
    shutil.copyfile(options.image, options.work / "volume" / f"image{options.image.suffix}")
    (options.work / "configuration" / "serve.toml").write_text(
        f'[serve]\nbundle = "{VOLUME}/bundle"\nstate = "{VOLUME}/serve-state"\n[http]\nport = {port}\n',
        encoding="utf-8",
    )
    subprocess.run(["chown", "-R", stage.settings["USER"], options.work / "volume"], check=True)


def serve(root: Path, stage: Stage, options: argparse.Namespace) -> str:
    """Start the image's own command, wait for its HEALTHCHECK, and stop it as an engine does."""
    command = argv(stage.settings["ENTRYPOINT"]) + argv(stage.settings["CMD"])
    check = container(root, stage, options, argv(stage.settings["HEALTHCHECK"].partition("CMD ")[2]))
    started = time.monotonic()
    # Not its own namespace of processes: the signal has to come to the service itself.
    arguments = [word for word in container(root, stage, options, command) if word not in _OF_PROCESSES]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as service:
        try:
            while subprocess.run(check, capture_output=True, check=False).returncode != 0:
                if service.poll() is not None or time.monotonic() - started > 60:
                    raise SystemExit(
                        f"it does not become healthy: {service.stderr.read() if service.stderr else ''}"
                    )
                time.sleep(0.2)
            seconds = time.monotonic() - started
        finally:
            service.send_signal(getattr(signal, stage.settings["STOPSIGNAL"]))
        code = service.wait(timeout=30)
    if code not in (0, 130):
        raise SystemExit(f"after {stage.settings['STOPSIGNAL']} it ends with {code}")
    return f"healthy after {seconds:.1f} s, ended with {code}"


_OF_PROCESSES = ("--pid", "--fork", "--kill-child")


def said(line: str) -> None:
    """Say what is done."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Build and try."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for the stages")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, help="where pip takes packages from, in place of its index")
    parser.add_argument("--base", type=Path, help="a folder with the base image, not changed")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.work = options.work.resolve()
    stages = stages_of(FILE.read_text(encoding="utf-8"))
    root, stage = build(stages, options), stages[-1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    prepare(stage, options, port)

    def out(*command: str) -> str:
        done = subprocess.run(container(root, stage, options, list(command)), capture_output=True, text=True)
        return (
            (done.stdout + done.stderr).strip()
            if done.returncode == 0
            else f"code {done.returncode}: {done.stderr}"
        )

    image = f"{VOLUME}/image{options.image.suffix}"
    found = {
        "user": out("id"),
        "capabilities": out("grep", "CapBnd", "/proc/self/status"),
        "root": out("touch", "/opt/fedmedclip/written"),
        "volume": out("touch", f"{VOLUME}/written"),
        "version": out("fedmedclip", "--version"),
        "predict": out("fedmedclip", "predict", image, "--bundle", f"{VOLUME}/bundle"),
        "serve": serve(root, stage, options),
        "megabytes": round(megabytes(root)),
        "of it fedmedclip": round(megabytes(root / "opt")),
        "of it the base image": round(megabytes(base(stage.base, options))),
    }
    for name, value in found.items():
        said(f"{name}: {value}")
    wrong = [
        name for name in ("user", "volume", "version", "predict") if str(found[name]).startswith("code ")
    ]
    wrong += [] if "Read-only file system" in found["root"] else ["root"]
    print(json.dumps({"passed": not wrong, "wrong": wrong, **found}))
    sys.exit(bool(wrong))


def megabytes(folder: Path) -> float:
    """Return how much lies in a folder, in units of 10^6 bytes."""
    done = subprocess.run(["du", "-sb", folder], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0]) / 1e6


if __name__ == "__main__":
    main()

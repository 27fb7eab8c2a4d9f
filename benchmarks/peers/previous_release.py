"""The previous release beside this one at one broker: who refuses whom, in which words, and that nobody ends.

    python -m benchmarks.peers.previous_release --bundle BUNDLE --data SITE --out FOLDER

Builds a wheel of the last commit of release 0.1.0 (a clone with its history is needed) and installs it into a
folder of its own, without its dependencies: those of this environment serve both. Prints what each party said
of the other; ends with code 1 when a party ended or said nothing.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)

RELEASE = "0.1.0"
LAST_COMMIT = "3aeb39f"
PATIENCE_SECONDS = 90.0
# Release 0.1.0 is no package that `python -m` could run.
_RUN_INSTALLED = ["-c", "from fedmedclip import main; main()"]


def install(folder: Path) -> Path:
    """Install the previous release into a folder and return it."""
    target = folder / f"release-{RELEASE}"
    if not target.exists():
        source = folder / "source"
        archive = subprocess.run(["git", "archive", LAST_COMMIT], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(source, filter="data")
        pip = [sys.executable, "-m", "pip", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
        (wheel,) = folder.glob(f"fedmedclip_edge-{RELEASE}-*.whl")
        subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


class Party:
    """A command of this release, or with `installed` of the one that lies there."""

    def __init__(self, name: str, arguments: list[str], logs: Path, installed: Path | None) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.name, self.log_file = name, logs / f"{name}.log"
        surroundings, run = {**os.environ, "OMP_NUM_THREADS": "1"}, ["-m", "fedmedclip"]
        if installed is not None:
            surroundings["PYTHONPATH"], run = str(installed), _RUN_INSTALLED
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *run, *arguments],
                stdout=log, stderr=log, cwd=logs, env=surroundings,
            )  # fmt: skip

    def said(self, words: str) -> str:
        """Return the first line with these words; empty when there is none yet."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        return next((line for line in lines if words in line), "")

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """End it, in good order."""
        if not self.ended:
            self.process.terminate()
        self.process.wait(30)


def side_by_side(folder: Path, bundle: Path, data: Path, installed: Path, *, older: str) -> bool:
    """Run an aggregator and a site of which one is `older`; print what they said.

    Return whether both said it and neither ended.
    """
    with MosquittoBroker() as broker:
        settings = LinkSettings(host=broker.host, port=broker.port)
        write_aggregator_configuration(
            folder / "aggregator" / "aggregator.toml", federation="trial", bundle=bundle, method="fedmedclip",
            rounds=2, sites=1, seed=3, broker=settings,
        )  # fmt: skip
        write_site_configuration(
            folder / "site" / "site.toml", federation="trial", site="site-a", bundle=bundle, data=data,
            seed=3, broker=settings, insecure=older != "site",
            approve=None if older == "site" else "automatic",
        )  # fmt: skip
        parties = [
            Party(
                role,
                [role, "--config", str(folder / role / f"{role}.toml")],
                folder / "logs",
                installed if role == older else None,
            )
            for role in ("aggregator", "site")
        ]
        until = time.monotonic() + PATIENCE_SECONDS
        try:
            while time.monotonic() < until and not any(party.ended for party in parties):
                if parties[1].said("protocol version"):
                    # Long enough to see that what was refused ended nobody.
                    until = min(until, time.monotonic() + 5.0)
                time.sleep(0.5)
            # What a site of 0.1.0 says to an aggregator that it does not understand is its farewell.
            aggregator, site = parties
            alive = not any(party.ended for party in parties)
            site.stop()
            until = time.monotonic() + 5.0
            while time.monotonic() < until and not aggregator.said("protocol version"):
                time.sleep(0.1)
            fine = alive and not aggregator.ended
            for party in parties:
                line = party.said("protocol version")
                release = RELEASE if party.name == older else "this release"
                print(f"{party.name} ({release}): {line or 'SAID NOTHING'}")
                fine = fine and bool(line)
            print("both went on" if alive else "ONE ENDED")
            return fine
        finally:
            for party in parties:
                party.stop()


def main() -> None:
    """Try both ways round."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--bundle", type=Path, required=True)
    options.add_argument("--data", type=Path, required=True, help="one site's images")
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    out = given.out.resolve()
    installed = install(out)
    results = [
        side_by_side(
            out / f"older-{older}", given.bundle.resolve(), given.data.resolve(), installed, older=older
        )
        for older in ("aggregator", "site")
    ]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()

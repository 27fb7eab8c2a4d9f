"""What goes wrong with what is stored: lost, replaced by an old copy, damaged, or without room."""

import os
import subprocess
from contextlib import suppress

from benchmarks.liveness.trial import ROUNDS, SITES, Trial

DISK_BYTES = 4 << 20
PASSES_BY_ITSELF = 75


def restored_backup(trial: Trial) -> None:
    """The state is lost, and an old copy put back: the sites hold what it lacks."""
    backup, config = str(trial.folder / "backup"), str(trial.config)
    trial.start("aggregator", *SITES, once=False)
    trial.wait_for_version(2)
    assert trial.command("aggregator", "backup", backup, "--config", config) == 0
    trial.wait_for_version(6)
    trial.kill("aggregator")
    assert trial.command("aggregator", "restore", backup, "--config", config) == 0
    trial.start("aggregator")
    trial.wait_for_end("aggregator")
    trial.digest_of(ROUNDS)


def flipped_bit_of_the_aggregator(trial: Trial) -> None:
    """One bit of the stored global head changes."""
    trial.survives("aggregator", lambda: trial.flip_bit("aggregator/aggregator.db", "federation", "head"))


def flipped_bit_of_a_site(trial: Trial) -> None:
    """One bit of the shared head at a site changes."""
    trial.survives("site-b", lambda: trial.flip_bit("site-b/site.db", "site", "shared_head"))


def deleted_state_of_a_site(trial: Trial) -> None:
    """A site's database is gone; it begins anew with the same key."""
    trial.survives("site-b", lambda: trial.delete("site-b/site.db"))


def deleted_state_of_the_aggregator(trial: Trial) -> None:
    """The aggregator's database is gone: it says what to do, and another run with the same key works."""
    trial.start("aggregator", *SITES, once=False)
    trial.wait_for_version(2)
    trial.kill("aggregator")
    trial.delete("aggregator/aggregator.db")
    assert trial.command("aggregator", "--config", str(trial.config)) == 2
    assert "--new-run" in trial.log_of("command")
    trial.start("aggregator", more=["--new-run"])
    trial.wait_for_end("aggregator")
    trial.digest_of(ROUNDS)


def full_disk(trial: Trial) -> None:
    """The disk under the aggregator's state is full; space is made, and it is started again."""
    if os.geteuid() != 0:
        raise AssertionError("a small disk can be mounted by root only")
    disk = trial.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(disk)]
    subprocess.run(mount, check=True, timeout=10)
    try:
        trial.edit(state=str(disk))
        trial.start("aggregator", *SITES)
        trial.wait_for_log("aggregator", "round 1: aggregated")
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        ended = trial.processes.pop("aggregator").process.wait(60)
        assert ended == PASSES_BY_ITSELF, f"the aggregator ended with code {ended}"
        assert "the disk is full" in trial.log_of("aggregator")
        filler.unlink()
        trial.start("aggregator")
        trial.wait_for_end()
    finally:
        trial.kill_all()
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


SITUATIONS = [
    restored_backup, flipped_bit_of_the_aggregator, flipped_bit_of_a_site, deleted_state_of_a_site,
    deleted_state_of_the_aggregator, full_disk,
]  # fmt: skip

"""What a site's privacy has cost so far, for its operator."""

import msgspec

from fedmedclip.edge_client.privacy.accounting import epsilon_spent
from fedmedclip.edge_client.site.budget import Budget
from fedmedclip.edge_client.site.releases import Releases
from fedmedclip.protocol.privacy import PrivacySettings


class ReleaseSpending(msgspec.Struct, frozen=True):
    """An update: its round, the noisy number of images that it tells, and what it costs by itself."""

    round_number: int
    images: int
    cost: float


class RunSpending(msgspec.Struct, frozen=True):
    """A run: of `epsilon` at `delta` so much is spent."""

    run: int
    spent: float
    epsilon: float
    delta: float
    releases: list[ReleaseSpending]


class Spending(msgspec.Struct, frozen=True):
    """All runs, oldest first. `spent` is that of all together at `delta`; `epsilon` what the operator allows
    them (None: no limit).
    """

    runs: list[RunSpending]
    spent: float
    epsilon: float | None
    delta: float


def spending_of(releases: Releases, own: PrivacySettings) -> Spending:
    """Return what is spent. Raises InvalidInputError where dp-accounting is needed and not installed."""
    budget, runs = Budget(releases, own), []
    every = releases.listing()
    for run in dict.fromkeys(release.run for release in every):
        of_run = [release for release in every if release.run == run]
        newest = of_run[-1].report
        runs.append(
            RunSpending(
                run,
                epsilon_spent(budget.of_run(run), newest.delta),
                newest.epsilon,
                newest.delta,
                [ReleaseSpending(found.round_number, found.images, found.report.cost) for found in of_run],
            )
        )
    return Spending(runs, budget.total(own.delta), own.epsilon, own.delta)


def spending_lines(spending: Spending) -> list[str]:
    """Return it as lines for a person."""
    if not spending.runs:
        return ["nothing was released under [privacy] here"]
    lines = [
        f"run {run.run}: {len(run.releases)} updates, epsilon {run.spent:.3g} of {run.epsilon:g} "
        f"at delta {run.delta:g}"
        for run in spending.runs
    ]
    limit = "" if spending.epsilon is None else f" of {spending.epsilon:g}"
    return [*lines, f"all runs: epsilon {spending.spent:.3g}{limit} at delta {spending.delta:g}"]

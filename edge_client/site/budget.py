"""Whether a release fits what may be spent in a run, and what the operator lets all runs cost together."""

from collections.abc import Sequence

from fedmedclip.edge_client.privacy.accounting import GaussianSteps, epsilon_spent
from fedmedclip.edge_client.site.releases import Releases
from fedmedclip.protocol.messages import PrivacySpent, PrivacyTerms
from fedmedclip.protocol.privacy import PrivacySettings

# For the last bits of what was calibrated to spend a budget to its end.
_ROUNDING = 1.0 + 1e-9


class Budget:
    """What is left at a site; `own` is what its operator demands, over all runs together."""

    def __init__(self, releases: Releases, own: PrivacySettings) -> None:
        self._releases = releases
        self._own = own

    def report(self, run: int, steps: Sequence[GaussianSteps], terms: PrivacyTerms) -> PrivacySpent:
        """Return what a release of these steps costs by itself, and with all that the run has released."""
        return PrivacySpent(
            epsilon_spent(steps, terms.delta),
            epsilon_spent([*self.of_run(run), *steps], terms.delta),
            terms.epsilon,
            terms.delta,
        )

    def refusal(self, run: int, steps: Sequence[GaussianSteps], terms: PrivacyTerms) -> str:
        """Return why a release of these steps does not fit; empty where it does."""
        spent = epsilon_spent([*self.of_run(run), *steps], terms.delta)
        if spent > terms.epsilon * _ROUNDING:
            return _spent(
                "the privacy budget of this run",
                epsilon_spent(self.of_run(run), terms.delta),
                spent,
                terms.epsilon,
                terms.delta,
            )
        if self._own.epsilon is None:
            return ""
        delta = self._own.delta
        spent = self.total(delta, steps)
        if spent > self._own.epsilon * _ROUNDING:
            return _spent(
                "the privacy budget that this site has for all runs",
                self.total(delta),
                spent,
                self._own.epsilon,
                delta,
            )
        return ""

    def of_run(self, run: int) -> list[GaussianSteps]:
        """Return all steps that a run has released."""
        return [step for release in self._releases.listing() if release.run == run for step in release.steps]

    def total(self, delta: float, more: Sequence[GaussianSteps] = ()) -> float:
        """Return the epsilon of all runs together, with `more`."""
        every = [step for release in self._releases.listing() for step in release.steps]
        return epsilon_spent([*every, *more], delta)


def _spent(what: str, before: float, after: float, limit: float, delta: float) -> str:
    return (
        f"{what} is spent: epsilon {before:.3g} of {limit:g} at delta {delta:g}, and with another update it "
        f"would be {after:.3g}"
    )

"""The table `[policy]` of `site.toml`: what this hospital's operator allows."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.edge_client.versions.rule import Activate, ActivationRule

Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is trained here, what may leave, and which version answers.

    With `approve` "ask" a plan is trained once the operator has approved it (`fedmedclip site approve`), with
    "automatic" every plan of this federation's coordinator is. Of what leaves, `bytes_per_day` (of this
    machine's local days) and `bytes_in_all` bound the bytes, `rounds_in_all` the rounds of all runs to which
    this site contributes; None is no bound. `share_metrics` says whether the coordinator is told how good
    each version is here, with no number of images below `smallest_count`.

    `activate` says when a new version becomes the active one: "guarded" if it is not worse than the one that
    is, "by hand" only when the operator says so, "always" without a question. Worse is a loss of balanced
    accuracy above `tolerated_loss`, or one of accuracy, calibration or a class's sensitivity that a paired
    test by group shows at level `significance`. `tolerated_changes` is the share of recent images without
    labels whose answer may change. The `keep_versions` newest versions are kept, and whatever is or was
    active. Of the `replay_rounds` newest updates it is kept what they were made of, for `ledger replay`.
    """

    approve: Literal["ask", "automatic"] = "ask"
    bytes_per_day: Bytes | None = None
    bytes_in_all: Bytes | None = None
    rounds_in_all: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    share_metrics: bool = True
    smallest_count: Annotated[int, Meta(ge=1, le=1_000_000)] = 8
    activate: Activate = "guarded"
    tolerated_loss: Annotated[float, Meta(ge=0, le=1)] = 0.0
    significance: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    tolerated_changes: Annotated[float, Meta(ge=0, le=1)] = 0.25
    keep_versions: Annotated[int, Meta(ge=2, le=100_000)] = 20
    replay_rounds: Annotated[int, Meta(ge=0, le=1_000)] = 10

    @property
    def activation(self) -> ActivationRule:
        """What decides which version is active."""
        return ActivationRule(
            self.activate,
            self.tolerated_loss,
            self.significance,
            self.tolerated_changes,
            self.keep_versions,
        )


AUTOMATIC = PolicySettings(approve="automatic")
"""Every plan of the federation's coordinator is trained, and nothing bounds what leaves: for simulations."""

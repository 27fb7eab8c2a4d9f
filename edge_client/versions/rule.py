"""When a new version becomes the one that answers, as the site's operator has it."""

from typing import Literal

import msgspec

Activate = Literal["guarded", "by hand", "always"]


class ActivationRule(msgspec.Struct, frozen=True):
    """`activate`: if it is not worse, only when the operator says so, or without a question.

    Worse is a loss of balanced accuracy above `tolerated_loss`, or one that a paired test by group shows at
    level `significance`. `tolerated_changes` is the share of recent images whose answer may change. The
    `keep_versions` newest versions are kept, and those that were active last.
    """

    activate: Activate = "guarded"
    tolerated_loss: float = 0.0
    significance: float = 0.05
    tolerated_changes: float = 0.25
    keep_versions: int = 20


DEFAULT_RULE = ActivationRule()

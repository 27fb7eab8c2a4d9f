"""The numbers of local training, as a site's configuration names them. Read without torch."""

import math
from typing import Literal

import msgspec

from fedmedclip.protocol.errors import InvalidInputError

DEFAULTS_CHOSEN_ON = ("brain_tumor",)
"""The data sets that the defaults below were chosen on, with test figures in sight."""


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the heads train at a site. The defaults' measurements are in docs/results/fedmedclip-defaults.md.

    Learning rates hold for the first round and are multiplied by `learning_rate_decay` per round;
    `classification_weight` is that of the private head's own loss; `adaptive_distillation` weights the two
    directions of distillation by the heads' confidence, otherwise equally.

    For every trained method: `local_steps` batches a round in place of `local_epochs` (0: epochs);
    `proximal_weight` is FedProx's mu, half of which times the squared distance to the round's global head is
    added to the loss (Li et al. 2020, equation 2); `gradient_clip` the largest norm of the gradient of all
    weights together (0: any); `class_balanced` weighs an image by the inverse of its class's number at the
    site; `focal_gamma` > 0 makes the losses over classes focal; with `early_stopping_patience` > 0 the
    heads of the epoch with the lowest loss on the validation split are kept, and training ends after so many
    epochs without a lower one. `adaptation_weight` is that of FACMIC's and FAA-CLIP's adaptation term, which
    needs a reference set; None: the method's own, 1 of FACMIC and 0.5 of FAA-CLIP. `optimizer` is "adamw",
    whose weight decay stands beside the gradient, or "adam", whose weight decay is L2 within it;
    with `keep_optimizer_state` its moments go on from round to round of a run, at the site, instead of
    beginning afresh. `drop_last` leaves out an epoch's last batch where it is smaller than the others.

    Raises InvalidInputError when a value is out of its range.
    """

    shared_learning_rate: float = 1e-3
    private_learning_rate: float = 5e-4
    learning_rate_decay: float = 0.97
    batch_size: int = 32
    local_epochs: int = 1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.02
    classification_weight: float = 1.0
    distillation_weight: float = 0.04
    distillation_temperature: float = 2.0
    adaptive_distillation: bool = True
    local_steps: int = 0
    proximal_weight: float = 0.0
    gradient_clip: float = 0.0
    class_balanced: bool = False
    focal_gamma: float = 0.0
    early_stopping_patience: int = 0
    adaptation_weight: float | None = None
    optimizer: Literal["adamw", "adam"] = "adamw"
    keep_optimizer_state: bool = False
    drop_last: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInputError(
                    f"training setting {name} is {value}, it must be from {low} to {high}"
                )

    def of_private_head(self) -> "TrainingSettings":
        """Return the settings that train a private head on a shared head that stands."""
        return msgspec.structs.replace(self, shared_learning_rate=0.0)

    def steps_at(self, sampling_rate: float) -> int:
        """Return a round's steps that see each image with this probability: as set, or as the epochs have."""
        return self.local_steps or math.ceil(self.local_epochs / sampling_rate - 1e-9)

    def weight_of_adaptation(self, usual: float) -> float:
        """Return the weight of an adaptation term: `usual` is the method's own."""
        return usual if self.adaptation_weight is None else self.adaptation_weight


_RANGES: dict[str, tuple[float, float]] = {
    "shared_learning_rate": (0, 1),
    "private_learning_rate": (0, 1),
    "learning_rate_decay": (0, 1),
    "batch_size": (2, 65536),
    "local_epochs": (1, 1000),
    "beta1": (0, 0.99999),
    "beta2": (0, 0.99999),
    "epsilon": (1e-12, 1),
    "weight_decay": (0, 1),
    "classification_weight": (0, 1000),
    "distillation_weight": (0, 1000),
    "distillation_temperature": (1e-3, 1000),
    "local_steps": (0, 1_000_000),
    "proximal_weight": (0, 1000),
    "gradient_clip": (0, 1e6),
    "focal_gamma": (0, 10),
    "early_stopping_patience": (0, 1000),
    "adaptation_weight": (0, 1000),
}

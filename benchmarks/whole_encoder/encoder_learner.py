"""Training an image encoder at the sites, whole or by LoRA, as the papers that we compare with train it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from benchmarks.whole_encoder import lora
from benchmarks.whole_encoder.images import PoolImages
from benchmarks.whole_encoder.learner import Arrays, Indices, Kept, Predicted, Turn, copied
from benchmarks.whole_encoder.tower import ImageClassifier
from fedmedclip.edge_client.learning.losses import image_text_loss
from fedmedclip.protocol.seeds import derive_seed

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class EncoderMethod:
    """Hyper-parameters of a method. None is tuned on our data; the sources, as file and line at GitHub:

    - one local epoch, AdamW of betas 0.9 and 0.98 and epsilon 1e-6 whose state stays at the site from round
      to round, a learning rate that falls to 0.97 of itself each round, and the whole encoder's learning rate
      5e-5 and weight decay 0.2: AIPMLab/FedMedCLIP, DN-FedAVG-1.py, lines 33-50 and 95-99;
    - LoRA's rank 3, learning rate 5e-4 and weight decay 0.02: there, LoRA_OF-2.py, lines 48-60 and 104; scale
      1: the paper sets alpha to the first rank tried (Hu et al. 2022, section 4.1);
    - `proximal` mu = 0.01 and `contrastive` mu = 1 with `temperature` 0.5: AIPMLab/FACMIC, utils/training.py,
      lines 112 and 155, and main.py, line 47 (which takes the root of FedProx's squared distance; the paper,
      and so we, do not); 0.01 and 1 are also among the best of Li et al. 2021, section 4.1.

    Batch norm's statistics are measured anew by each batch and averaged like weights, as in that code; with
    `frozen_norm` they stay the pretrained ones, as under LoRA.
    """

    name: str
    learning_rate: float = 5e-5
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    decay: float = 0.97
    proximal: float = 0.0
    contrastive: float = 0.0
    temperature: float = 0.5
    rank: int = 0
    frozen_norm: bool = False


METHODS = {
    method.name: method
    for method in (
        EncoderMethod("fedavg-full"),
        EncoderMethod("fedavg-frozen-norm", frozen_norm=True),
        EncoderMethod("fedprox-full", proximal=0.01),
        EncoderMethod("fedprox-frozen-norm", proximal=0.01, frozen_norm=True),
        EncoderMethod("moon", contrastive=1.0),
        EncoderMethod("moon-frozen-norm", contrastive=1.0, frozen_norm=True),
        EncoderMethod("lora", learning_rate=5e-4, weight_decay=0.02, rank=3, frozen_norm=True),
    )
}


class EncoderLearner:
    """Trains the encoder of one classifier, which it makes with `make_classifier`, on images in memory."""

    def __init__(
        self,
        method: EncoderMethod,
        make_classifier: Callable[[], ImageClassifier],
        images: PoolImages,
        labels: Indices,
        logit_scale: float,
        device: str = "cpu",
    ) -> None:
        self._method = method
        self._make = make_classifier
        self._images = images
        self._labels = torch.from_numpy(labels)
        self._logit_scale = logit_scale
        self._device = device
        self._model = make_classifier().to(device)
        if method.rank:
            lora.adapt(self._model.visual, method.rank, scale=1.0)
        else:
            self._model.visual.requires_grad_(True)
        self._travels = self._what_changes()

    def initial(self, seed: int) -> Arrays:
        """Return the encoder's own arrays; of LoRA, A drawn with this seed and B zero."""
        if self._method.rank:
            lora.redraw(self._model.visual, derive_seed(seed, purpose="low-rank differences"))
        return self._arrays(self._model)

    def train(self, shared: Arrays, kept: Kept, turn: Turn) -> tuple[Arrays, Kept]:
        """Return the arrays after one local epoch."""
        self._load(self._model, shared)
        # CLIP's towers train as they classify but for batch norm: dropout they have none.
        self._model.visual.train(not self._method.frozen_norm)
        trained = [one for one in self._model.visual.parameters() if one.requires_grad]
        start = [one.detach().clone() for one in trained] if self._method.proximal else []
        contrast = self._contrast(shared, kept) if self._method.contrastive and kept.previous else None
        optimiser = self._optimiser(trained, kept, turn.round_number)
        for rows in turn.batches():
            images, labels = self._images.sites[rows].to(self._device), self._labels[rows].to(self._device)
            embeddings = self._model.embed(images)
            loss = image_text_loss(self._model.cosines(embeddings), labels, self._logit_scale)
            if start:
                loss = loss + self._method.proximal / 2 * squared_distance(trained, start)
            if contrast is not None:
                with torch.no_grad():
                    towards, away = (model.embed(images) for model in contrast)
                term = model_contrastive_loss(embeddings, towards, away, self._method.temperature)
                loss = loss + self._method.contrastive * term
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        arrays = self._arrays(self._model)
        return arrays, Kept(optimiser.state_dict(), arrays if self._method.contrastive else {})

    def predict(self, shared: Arrays, images: Indices | None) -> Predicted:
        """Classify by the encoder in its form for inference."""
        self._load(self._model, shared)
        self._model.visual.eval()
        pixels = self._images.global_test if images is None else self._images.sites[torch.from_numpy(images)]
        assert pixels is not None
        with torch.no_grad():
            found = [
                self._model(batch.to(self._device)).argmax(dim=1).cpu()
                for batch in torch.split(pixels, EVALUATION_BATCH)
                if len(batch)
            ]
        return torch.cat(found).numpy() if found else np.zeros(0, dtype=np.int64)

    def _what_changes(self) -> list[str]:
        """Return the names of what training changes: weights, and the statistics that batches measure."""
        trained = {name for name, one in self._model.visual.named_parameters() if one.requires_grad}
        measured = () if self._method.frozen_norm else ("running_mean", "running_var")
        return [
            name
            for name in self._model.visual.state_dict()
            if name in trained or name.rpartition(".")[2] in measured
        ]

    def _optimiser(self, trained: list[torch.nn.Parameter], kept: Kept, number: int) -> torch.optim.AdamW:
        method = self._method
        optimiser = torch.optim.AdamW(
            trained, betas=method.betas, eps=method.epsilon, weight_decay=method.weight_decay
        )
        if kept.optimiser:
            optimiser.load_state_dict(kept.optimiser)
        for group in optimiser.param_groups:
            group["lr"] = method.learning_rate * method.decay ** (number - 1)
        return optimiser

    def _contrast(self, shared: Arrays, kept: Kept) -> tuple[ImageClassifier, ImageClassifier]:
        """Return the shared encoder and what this site made of it in its last turn; they stay as they are."""
        models = []
        for arrays in (shared, kept.previous):
            model = self._make().to(self._device)
            self._load(model, arrays)
            models.append(model.eval().requires_grad_(False))
        return models[0], models[1]

    def _load(self, model: ImageClassifier, arrays: Arrays) -> None:
        model.visual.load_state_dict(arrays, strict=False)

    def _arrays(self, model: ImageClassifier) -> Arrays:
        state = model.visual.state_dict()
        return copied({name: state[name] for name in self._travels})


def squared_distance(parameters: list[torch.nn.Parameter], start: list[Tensor]) -> Tensor:
    """Return the squared distance of all parameters from where they began (Li et al. 2020, equation 2)."""
    distances = [(one - other).square().sum() for one, other in zip(parameters, start, strict=True)]
    return torch.stack(distances).sum()


def model_contrastive_loss(embeddings: Tensor, towards: Tensor, away: Tensor, temperature: float) -> Tensor:
    """Return MOON's loss of embeddings (B, D): near those of the shared encoder, far from the site's last.

    Li et al. 2021, "Model-contrastive federated learning", equation 3; the mean over the batch.
    """
    cosines = torch.stack([cosine_similarity(embeddings, other) for other in (towards, away)], dim=1)
    return cross_entropy(
        cosines / temperature, torch.zeros(len(cosines), dtype=torch.int64, device=cosines.device)
    )

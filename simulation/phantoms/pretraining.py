"""Pretrain the small CLIP that the demo ships, from generated pairs of phantom and caption.

    python -m fedmedclip.simulation.phantoms.pretraining --out phantom_clip/fedmedclip_phantom_clip --seed 7

Recipe, all of it in `Recipe` and `PairsRecipe`:

- Model: open_clip's own CLIP. Image tower: ModifiedResNet (CLIP ResNet) with one block per stage, width 16,
  96 pixels, attention pooling. Text tower: a transformer of 2 layers, width 32, for most of the file is the
  49,408 word vectors. Joint space: 128 dimensions.
- Data: 6000 phantoms in three weightings, four findings equally often. Reports of them are partly vague and
  partly wrong (`simulation.phantoms.captions`). So the features know more than zero-shot prompts get out of
  them, and a federation has something to learn.
- Loss: symmetric image-text cross entropy (Radford et al. 2021) in which every caption that fits an image's
  report is a positive, the target spread evenly over the positives; plus the cross entropy of a linear head
  that reads the true finding off the image embedding, thrown away afterwards.
- AdamW (0.9, 0.98), peak rate 2e-3, 40 steps of warm-up, cosine decay, weight decay 0.05 on matrices,
  gradients clipped at norm 1, 800 steps of 64 images and 24 captions, image tower in bfloat16 autocast, one
  thread.
- Saved in half precision.

The same seed gives the same images and captions everywhere; the weights repeat bit for bit only with the
same PyTorch on the same kind of processor.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.phantoms.anatomy import FINDINGS
from fedmedclip.simulation.phantoms.pretraining_pairs import (
    DEVIATION,
    MEAN,
    SIDE,
    Batch,
    Examples,
    PairsRecipe,
    draw_batch,
    render_examples,
)

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": False,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": [MEAN] * 3,
    "std": [DEVIATION] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that the result depends on, beside the seed and the model's configuration."""

    pairs: PairsRecipe = field(default_factory=PairsRecipe)
    steps: int = 800
    warm_up: int = 40
    peak_rate: float = 2e-3
    weight_decay: float = 0.05
    largest_logit_scale: float = 50.0


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the model into.")],
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 7,
) -> None:
    """Train the demo's small CLIP, about 4 minutes on one core; write it in open_clip's local-dir layout."""
    torch.set_num_threads(1)
    recipe = Recipe()
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}")) as progress:
        examples = _render(recipe, seed, progress)
        model = train(recipe, examples, seed, progress)
    save(model, out)
    print(f"Wrote {out}. To measure it: python -m fedmedclip.simulation.phantoms.measure_clip --model {out}")


def train(recipe: Recipe, examples: Examples, seed: int, progress: Progress) -> Any:
    """Return an open_clip CLIP trained on `examples`, in evaluation mode."""
    declare_missing_operators()
    import open_clip

    torch.manual_seed(derive_seed(seed, purpose="pretraining weights"))
    model = open_clip.CLIP(**MODEL_CONFIG)
    model.visual.to(memory_format=torch.channels_last)
    finding_head = nn.Linear(MODEL_CONFIG["embed_dim"], len(FINDINGS))
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL_CONFIG["text_cfg"]["context_length"])
    generator = np.random.default_rng(derive_seed(seed, purpose="pretraining batches"))
    optimizer = _optimizer(model, finding_head, recipe)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: relative_rate(step, recipe))
    task = progress.add_task("training", total=recipe.steps, note="")
    model.train()
    for _ in range(recipe.steps):
        batch = draw_batch(examples, recipe.pairs, generator)
        loss = pretraining_loss(model, finding_head, batch, tokenizer(batch.texts))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(recipe.largest_logit_scale))
        progress.update(task, advance=1, note=f"loss {loss.item():.2f}")
    return model.eval()


def pretraining_loss(model: Any, finding_head: nn.Linear, batch: Batch, tokens: Tensor) -> Tensor:
    """Return the image-text loss on what was reported plus the finding loss on what is there, a scalar."""
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model.encode_image(batch.pixels)
    embeddings = embeddings.float()
    texts = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * functional.normalize(embeddings, dim=1) @ texts.T
    image_text = (
        _spread_cross_entropy(logits, batch.fits) + _spread_cross_entropy(logits.T, batch.fits.T)
    ) / 2
    return image_text + functional.cross_entropy(finding_head(embeddings), batch.findings)


def relative_rate(step: int, recipe: Recipe) -> float:
    """Return the share of the peak rate at `step`: a linear warm-up, then half a cosine down to 0."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warm_up) / (recipe.steps - recipe.warm_up)))


def save(model: Any, out: Path) -> None:
    """Write `model` into `out` as open_clip's local-dir loader reads it, weights in half precision."""
    from safetensors.torch import save

    out.mkdir(parents=True, exist_ok=True)
    configuration = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (out / "open_clip_config.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    (out / "open_clip_model.safetensors").write_bytes(save(weights))


def _render(recipe: Recipe, seed: int, progress: Progress) -> Examples:
    task = progress.add_task("drawing phantoms", total=recipe.pairs.images, note="")
    generator = np.random.default_rng(derive_seed(seed, purpose="pretraining images"))
    return render_examples(recipe.pairs, generator, lambda: progress.advance(task))


def _optimizer(model: Any, finding_head: nn.Linear, recipe: Recipe) -> torch.optim.Optimizer:
    # Most words never occur; decay would shrink their vectors although nothing ever moves them.
    words = model.token_embedding.weight
    parameters = list(model.parameters())
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2 and parameter is not words]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": [*others, words, *finding_head.parameters()], "weight_decay": 0.0},
        ],
        lr=recipe.peak_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def _spread_cross_entropy(logits: Tensor, fits: Tensor) -> Tensor:
    """Return the mean cross entropy of rows against their positives; a row without one does not count."""
    paired = fits.any(dim=1)
    target = fits[paired].float()
    return functional.cross_entropy(logits[paired], target / target.sum(dim=1, keepdim=True))


if __name__ == "__main__":
    typer.run(main)

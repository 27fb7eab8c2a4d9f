"""Losses that several methods share. Each image can weigh differently, by its class or its difficulty."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Return sum(weights * losses) / sum(weights) of (B,) each; the plain mean without weights."""
    return losses.mean() if weights is None else (weights * losses).sum() / weights.sum()


def classification_loss(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, focal_gamma: float = 0.0
) -> Tensor:
    """Cross entropy of logits (B, C) and labels (B,), focal when gamma > 0 (Lin et al. 2017, equation 5)."""
    losses = cross_entropy(logits, labels, reduction="none")
    return weighted_mean(_focus(logits, labels, focal_gamma) * losses, weights)


def image_text_loss(
    cosines: Tensor,
    labels: Tensor,
    logit_scale: float,
    weights: Tensor | None = None,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Symmetric cross entropy over the batch's own image-caption pairs, as CLIP's (Radford et al. 2021).

    `cosines` (B, C) of image and class, `labels` (B,). The caption of pair j is the embedding of its class,
    so images of one class share a caption. Naming only pair i as the right answer for image i then gives the
    very same loss as spreading the target evenly over all pairs of i's class: equal captions have equal
    columns, and summed over a class the two targets name each of its images equally often. A focal factor
    is 1 - p to the power gamma, p the image's probability of its class among all classes.
    """
    pairs = logit_scale * cosines[:, labels]
    own = torch.arange(len(labels), device=labels.device)
    both = cross_entropy(pairs, own, reduction="none") + cross_entropy(pairs.T, own, reduction="none")
    return weighted_mean(_focus(logit_scale * cosines, labels, focal_gamma) * both, weights) / 2


def _focus(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    if gamma == 0:
        return torch.ones_like(logits[:, 0])
    own = log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1).exp()
    return (1 - own).clamp(min=1e-6) ** gamma


def local_maximum_mean_discrepancy(
    source: Tensor, source_labels: Tensor, target: Tensor, target_probabilities: Tensor
) -> Tensor:
    """LMMD of source features (B, D) and target features (T, D): how far apart the same classes lie.

    Zhu et al. 2020, "Deep subdomain adaptation network", as FACMIC uses it. Class weights of the source come
    from its labels (B,), of the target from its probabilities (T, C); only classes that occur in both, by
    label and by the target's likeliest class, count; each class's weights sum to 1 over the batch. The
    probabilities and the kernels' bandwidths carry no gradient. 0 when no class is common.
    """
    classes = target_probabilities.shape[1]
    probabilities = target_probabilities.detach()
    chosen = torch.nn.functional.one_hot(source_labels, classes).to(source.dtype)
    likeliest = torch.nn.functional.one_hot(probabilities.argmax(dim=1), classes)
    common = ((chosen.sum(dim=0) > 0) & (likeliest.sum(dim=0) > 0)).nonzero().squeeze(1)
    if len(common) == 0:
        return (source * 0).sum()
    source_weights = chosen[:, common] / chosen[:, common].sum(dim=0)
    target_weights = probabilities[:, common] / probabilities[:, common].sum(dim=0)
    # Signed weights of the joint batch turn the three sums into one quadratic form per class.
    weights = torch.cat([source_weights, -target_weights])
    kernel = gaussian_kernels(torch.cat([source, target]))
    return (weights * (kernel @ weights)).sum() / len(common)


def gaussian_kernels(joint: Tensor, number: int = 5) -> Tensor:
    """Return the sum (N, N) of Gaussian kernels exp(-d^2 / b) of the rows of (N, D).

    Bandwidths b double, and the middle one is the mean squared distance of different rows.
    """
    squared = (joint[:, None, :] - joint[None, :, :]).pow(2).sum(dim=2)
    pairs = max(len(joint) * (len(joint) - 1), 1)
    mean = (squared.detach().sum() / pairs).clamp(min=1e-12)
    bandwidths = [mean * 2.0 ** (index - number // 2) for index in range(number)]
    return torch.stack([torch.exp(-squared / bandwidth) for bandwidth in bandwidths]).sum(dim=0)

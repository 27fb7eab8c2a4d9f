"""FACMIC, FAA-CLIP, FedCLIP and the baselines in float64 numpy, from their description alone.

FAA-CLIP's adversarial term is from its authors' code: AIPMLab/FAA-CLIP, commit 62c07c6, `adaptation.py` lines
184 to 237 and `utils/training.py` lines 40 to 64.
"""

import numpy as np


def softmax(z, axis=1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def unit(x):
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def linear(head, name, x):
    return x @ head[f"{name}.weight"].T + head[f"{name}.bias"]


def batch_norm(head, name, x, training=True):
    mean = x.mean(0) if training else head[f"{name}.running_mean"]
    variance = x.var(0) if training else head[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * head[f"{name}.weight"] + head[f"{name}.bias"]


def normalised_attention(head, e, training=True):
    hidden = batch_norm(head, "norm", linear(head, "first", e), training)
    return unit(softmax(linear(head, "second", np.where(hidden > 0, hidden, 0.01 * hidden))) * e)


def tanh_attention(head, e, training=True):
    return unit(softmax(linear(head, "second", np.tanh(linear(head, "first", e)))) * e)


def adapter(head, e, training=True):
    inner = np.maximum(linear(head, "down", e), 0)
    return unit(0.2 * np.maximum(linear(head, "up", inner), 0) + 0.8 * e)


def image_text(cosines, labels, s):
    pairs = s * cosines[:, labels]
    n = len(labels)
    rows = -np.mean([np.log(softmax(pairs, 1)[i, i]) for i in range(n)])
    columns = -np.mean([np.log(softmax(pairs, 0)[i, i]) for i in range(n)])
    return (rows + columns) / 2


def classification(logits, labels, weights=None, gamma=0.0):
    p = softmax(logits)[np.arange(len(labels)), labels]
    weights = np.ones(len(labels)) if weights is None else weights
    return (weights * (1 - p) ** gamma * -np.log(p)).sum() / weights.sum()


def kernels(x, mean=None):
    squared = np.array([[((a - b) ** 2).sum() for b in x] for a in x])
    n = len(x)
    mean = squared.sum() / (n * (n - 1)) if mean is None else mean
    return sum(np.exp(-squared / (mean * 2.0**power)) for power in (-2, -1, 0, 1, 2)), mean


def lmmd(source, labels, target, probabilities, mean=None):
    kernel, mean = kernels(np.concatenate([source, target]), mean)
    n, total, common = len(source), 0.0, 0
    for c in range(probabilities.shape[1]):
        if not (labels == c).any() or not (probabilities.argmax(1) == c).any():
            continue
        common += 1
        ws = (labels == c) / (labels == c).sum()
        wt = probabilities[:, c] / probabilities[:, c].sum()
        for i in range(n):
            for j in range(n):
                total += ws[i] * ws[j] * kernel[i, j]
        for i in range(len(target)):
            for j in range(len(target)):
                total += wt[i] * wt[j] * kernel[n + i, n + j]
        for i in range(n):
            for j in range(len(target)):
                total -= 2 * ws[i] * wt[j] * kernel[i, n + j]
    return total / max(common, 1)


def discriminate(head, features):
    hidden = np.maximum(batch_norm(head, "norm1", linear(head, "linear1", features)), 0)
    hidden = np.maximum(batch_norm(head, "norm2", linear(head, "linear2", hidden)), 0)
    return 1 / (1 + np.exp(-linear(head, "linear3", hidden)[:, 0]))


def adversarial(head, source, target):
    """Each domain passes the discriminator alone; half the sum of both cross entropies."""
    return -np.log(discriminate(head, source)).mean() / 2 - np.log(1 - discriminate(head, target)).mean() / 2


def faa_clip_of_the_head(head, discriminator, e, labels, captions, target, s):
    """What the shared head descends: the adversarial term reversed, `target` adapted and held fixed."""
    source = normalised_attention(head, e)
    return image_text(source @ captions.T, labels, s) - 0.5 * adversarial(discriminator, source, target)

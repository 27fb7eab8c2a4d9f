"""FedMedCLIP's formulas transcribed in float64, straight from their description and nothing of ours."""

import numpy as np


def masked_linear(head, name, x):
    weight = head[f"{name}.weight"].astype(np.float64)
    threshold = head[f"{name}.threshold"].astype(np.float64)
    rows = []
    for o in range(weight.shape[0]):
        kept = np.mean(np.abs(weight[o])) - threshold[o] > 0.01
        rows.append(weight[o] if kept else np.zeros_like(weight[o]))
    return x @ np.array(rows).T + head[f"{name}.bias"].astype(np.float64)


def softmax(z, axis):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def adapt(shared, e):
    hidden = masked_linear(shared, "first", e)
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    attention = softmax(masked_linear(shared, "second", np.maximum(hidden, 0)), axis=1)
    adapted = attention * e
    return adapted / np.sqrt((adapted**2).sum(1, keepdims=True))


def mlp(private, x, training):
    for layer in (1, 2, 3):
        x = masked_linear(private, f"linear{layer}", x)
        mean = x.mean(0) if training else private[f"norm{layer}.running_mean"]
        variance = x.var(0) if training else private[f"norm{layer}.running_var"]
        x = (x - mean) / np.sqrt(variance + 1e-5)
        x = np.maximum(x * private[f"norm{layer}.weight"] + private[f"norm{layer}.bias"], 0)
    return masked_linear(private, "classifier", x)


def entropy(p):
    return -(p * np.log(p)).sum(axis=1)


def loss_terms(shared, private, e, labels, classes, s, weight=0.04, temperature=2.0, adaptive=True):
    adapted = adapt(shared, e)
    logits = mlp(private, adapted, training=True)
    cosines = adapted @ classes.T
    n = len(labels)

    captions = classes[labels]
    pairs = s * adapted @ captions.T
    by_image = -np.mean([np.log(softmax(pairs, 1)[i, i]) for i in range(n)])
    by_text = -np.mean([np.log(softmax(pairs, 0)[i, i]) for i in range(n)])

    cross_entropy = -np.mean([np.log(softmax(logits, 1)[i, labels[i]]) for i in range(n)])

    to_fam = to_mlp = 0.0
    for c in range(classes.shape[0]):
        fam, own = softmax(cosines[:, c] / temperature, 0), softmax(logits[:, c] / temperature, 0)
        to_fam += (own * np.log(own / fam)).sum() / classes.shape[0]
        to_mlp += (fam * np.log(fam / own)).sum() / classes.shape[0]
    h_fam, h_mlp = entropy(softmax(s * cosines, 1)), entropy(softmax(logits, 1))
    alpha = np.mean((1 / h_mlp) / (1 / h_mlp + 1 / h_fam)) if adaptive else 0.5
    return {
        "image_text": (by_image + by_text) / 2,
        "classification": cross_entropy,
        "distillation": weight * (alpha * to_fam + (1 - alpha) * to_mlp),
    }


def spread_image_text(cosines, labels, s):
    """The image-text loss with each target spread evenly over all pairs of the same class."""
    pairs = s * cosines[:, labels]
    targets = (labels[:, None] == labels[None, :]).astype(np.float64)
    targets /= targets.sum(axis=1, keepdims=True)
    by_image = -(targets * np.log(softmax(pairs, 1))).sum(1).mean()
    by_text = -(targets * np.log(softmax(pairs, 0).T)).sum(1).mean()
    return (by_image + by_text) / 2


def predict(shared, private, e, classes, s):
    adapted = adapt(shared, e)
    p_fam = softmax(s * adapted @ classes.T, 1)
    p_mlp = softmax(mlp(private, adapted, training=False), 1)
    h_fam, h_mlp = entropy(p_fam), entropy(p_mlp)
    alpha = (1 / h_mlp) / (1 / h_mlp + 1 / h_fam)
    return p_fam, p_mlp, (1 - alpha)[:, None] * p_fam + alpha[:, None] * p_mlp, alpha

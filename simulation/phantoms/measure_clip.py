"""Measure the demo's small CLIP on freshly drawn phantoms: zero-shot and linear probe at each site.

python -m fedmedclip.simulation.phantoms.measure_clip --model phantom_clip/fedmedclip_phantom_clip --seed 1
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from fedmedclip.export.class_embeddings import embed_classes
from fedmedclip.export.model import LoadedModel, load_model
from fedmedclip.export.prompts import read_class_prompts
from fedmedclip.simulation.phantoms.anatomy import FINDINGS
from fedmedclip.simulation.phantoms.phantoms import SITES, write_federation

Floats = npt.NDArray[np.float32]
PROBE_REGULARISATION = 0.1
IMAGES_PER_BATCH = 64


@dataclass(frozen=True)
class SiteEmbeddings:
    """The unit embeddings (N, D) and the labels (N,), indices into `FINDINGS`, of one site's images."""

    embeddings: Floats
    labels: npt.NDArray[np.int64]


def main(
    model: Annotated[Path, typer.Option(help="Folder in open_clip's local-dir layout.")],
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 1,
) -> None:
    """Print zero-shot and linear-probe accuracy for each site of a new federation of phantoms."""
    loaded = load_model(f"local-dir:{model}", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_federation(folder, seed)
        classes = embed_classes(loaded, read_class_prompts(folder))
        sites = {site.name: embed_site(loaded, folder / site.name) for site in SITES}
    print(f"logit scale {loaded.network.logit_scale.exp().item():.1f}")
    print(f"{'site':<18}{'images':>7}{'zero-shot':>11}{'probe':>7}   zero-shot of each class")
    for name, site in sites.items():
        right = is_zero_shot_right(site, classes)
        per_class = ", ".join(
            f"{name} {right[site.labels == c].mean():.2f}" for c, name in enumerate(FINDINGS)
        )
        print(f"{name:<18}{len(right):>7}{right.mean():>11.3f}{probe_accuracy([site]):>7.3f}   {per_class}")
    hospitals = [site for name, site in sites.items() if name.startswith("hospital")]
    print(f"probe on the hospitals pooled: {probe_accuracy(hospitals):.3f}")


def embed_site(loaded: LoadedModel, folder: Path) -> SiteEmbeddings:
    """Return the unit embeddings of every image under `folder`/<finding>/."""
    import torch
    from PIL import Image

    files = [
        (path, label) for label, name in enumerate(FINDINGS) for path in sorted((folder / name).iterdir())
    ]
    batches = []
    with torch.inference_mode():
        for start in range(0, len(files), IMAGES_PER_BATCH):
            pixels = [
                loaded.transform(Image.open(path)) for path, _ in files[start : start + IMAGES_PER_BATCH]
            ]
            batches.append(loaded.network.encode_image(torch.stack(pixels), normalize=True).numpy())
    return SiteEmbeddings(np.concatenate(batches), np.array([label for _, label in files]))


def is_zero_shot_right(site: SiteEmbeddings, classes: Floats) -> npt.NDArray[np.bool_]:
    """Return for each image whether the class (C, D) with the largest cosine is the right one, bool (N,)."""
    right: npt.NDArray[np.bool_] = (site.embeddings @ classes.T).argmax(axis=1) == site.labels
    return right


def probe_accuracy(sites: list[SiteEmbeddings]) -> float:
    """Return the accuracy of a logistic regression on a held-out third, drawn class by class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embeddings = np.concatenate([site.embeddings for site in sites])
    labels = np.concatenate([site.labels for site in sites])
    fitted, held_out, fitted_labels, held_out_labels = train_test_split(
        embeddings, labels, test_size=1 / 3, stratify=labels, random_state=0
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_REGULARISATION, max_iter=2000))
    return float(probe.fit(fitted, fitted_labels).score(held_out, held_out_labels))


if __name__ == "__main__":
    typer.run(main)

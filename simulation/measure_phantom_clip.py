"""Measure a CLIP on freshly made phantoms: zero-shot and linear probe at each site.

python -m simulation.measure_phantom_clip --model simulation/assets/phantom-clip --seed 1
"""

import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from export.torchvision_operators import declare_missing_operators
from simulation.phantom_anatomy import FINDINGS
from simulation.phantoms import SITES, write_federation

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LoadedClip:
    """An open_clip model in evaluation mode, its preprocessing and its tokenizer."""

    model: Any
    preprocess: Any
    tokenizer: Any


@dataclass(frozen=True)
class SiteFeatures:
    """The unit embeddings (N, D) and labels (N,) of one folder of images."""

    embeddings: Floats
    labels: Labels


def main(
    model: Annotated[Path, typer.Option(help="Folder in open_clip's local-dir layout.")],
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 1,
    scale: Annotated[float, typer.Option(help="Multiplies the number of images.")] = 1.0,
) -> None:
    """Print zero-shot and linear-probe accuracy for each site of a new federation of phantoms."""
    clip = load(model)
    with tempfile.TemporaryDirectory() as folder:
        write_federation(Path(folder), seed, scale=scale)
        classes = class_embeddings(clip, Path(folder) / "classes.toml")
        sites = {site.name: embed_site(clip, Path(folder) / site.name) for site in SITES}
    print(f"logit scale {clip.model.logit_scale.exp().item():.1f}")
    print(f"{'site':<18}{'images':>8}{'zero-shot':>11}{'probe':>8}   zero-shot per class")
    for name, features in sites.items():
        shot = zero_shot(features, classes)
        by_class = "  ".join(
            f"{finding} {shot[features.labels == index].mean():.2f}" for index, finding in enumerate(FINDINGS)
        )
        print(f"{name:<18}{len(shot):>8}{shot.mean():>11.3f}{probe_accuracy([features]):>8.3f}   {by_class}")
    hospitals = [features for name, features in sites.items() if name.startswith("hospital")]
    print(f"probe on the hospitals pooled: {probe_accuracy(hospitals):.3f}")


def load(folder: Path) -> LoadedClip:
    """Return the model at `folder` through open_clip's own local-dir loader."""
    declare_missing_operators()
    import open_clip
    import torch

    torch.set_num_threads(1)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return LoadedClip(model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}"))


def class_embeddings(clip: LoadedClip, classes_file: Path) -> Floats:
    """Return the unit class embeddings (C, D): the mean of the unit embeddings of a class's prompts."""
    import torch

    settings = tomllib.loads(classes_file.read_text(encoding="utf-8"))
    rows = []
    with torch.inference_mode():
        for phrases in settings["classes"].values():
            prompts = [template.format(phrase) for template in settings["templates"] for phrase in phrases]
            rows.append(clip.model.encode_text(clip.tokenizer(prompts), normalize=True).mean(0))
    means = torch.stack(rows).numpy()
    unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def embed_site(clip: LoadedClip, folder: Path, batch: int = 64) -> SiteFeatures:
    """Return the unit embeddings of every image under `folder`/<finding>/."""
    import torch

    paths = [
        (path, index) for index, name in enumerate(FINDINGS) for path in sorted((folder / name).iterdir())
    ]
    rows = []
    with torch.inference_mode():
        for start in range(0, len(paths), batch):
            pixels = [clip.preprocess(Image.open(path)) for path, _ in paths[start : start + batch]]
            rows.append(clip.model.encode_image(torch.stack(pixels), normalize=True).numpy())
    return SiteFeatures(np.concatenate(rows), np.array([index for _, index in paths]))


def zero_shot(features: SiteFeatures, classes: Floats) -> npt.NDArray[np.bool_]:
    """Return for each image whether the class with the largest cosine is the right one."""
    right: npt.NDArray[np.bool_] = (features.embeddings @ classes.T).argmax(1) == features.labels
    return right


def probe_accuracy(sites: list[SiteFeatures]) -> float:
    """Return the accuracy of a logistic regression on a held-out third, stratified by class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embeddings = np.concatenate([site.embeddings for site in sites])
    labels = np.concatenate([site.labels for site in sites])
    fit, held_out, fit_labels, held_out_labels = train_test_split(
        embeddings, labels, test_size=1 / 3, stratify=labels, random_state=0
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return float(probe.fit(fit, fit_labels).score(held_out, held_out_labels))


if __name__ == "__main__":
    typer.run(main)

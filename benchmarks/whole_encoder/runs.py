"""What is played of a benchmark on whole encoders: each method with each seed, where the folder lacks it."""

import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

import torch

from benchmarks.whole_encoder.encoder_learner import METHODS, EncoderLearner
from benchmarks.whole_encoder.federation import Round, play, settings_digest
from benchmarks.whole_encoder.heads import check_head_method, head_settings, play_heads
from benchmarks.whole_encoder.images import PoolImages, images_of_pool
from benchmarks.whole_encoder.learner import Learner
from benchmarks.whole_encoder.prompt_learner import SETTINGS, PromptLearner
from benchmarks.whole_encoder.results import Sites
from benchmarks.whole_encoder.tower import ImageClassifier
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.export.model import LoadedModel, load_model
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.run_file import RunFile

PROMPTFL = "promptfl"
TRAINED_HERE = (*METHODS, PROMPTFL)

Kept = RunFile[Round, tuple[str, str, int, int]]


@dataclass(frozen=True)
class Chosen:
    """The methods, and how long they are played: `rounds` of what trains an encoder, `head_rounds` of what
    works on the frozen one. Without `floors` heads of sites with few images travel too.
    """

    methods: tuple[str, ...]
    rounds: int
    head_rounds: int
    floors: bool

    def check(self) -> None:
        """Raise InvalidInputError for a method that there is not."""
        for method in self.methods:
            if method not in TRAINED_HERE:
                check_head_method(method, TRAINED_HERE)

    def rounds_of(self, method: str) -> int:
        """Return how many rounds a method is played."""
        return self.rounds if method in METHODS else self.head_rounds

    def played(self, kept: Kept, method: str, seed: int) -> list[Round]:
        """Return the rounds of a method that are there, in order; all of them, when it is finished."""
        settings = self._settings(method)
        found = (kept.runs.get((method, settings, seed, n + 1)) for n in range(self.rounds_of(method)))
        return [one for one in found if one is not None]

    def is_finished(self, kept: Kept, method: str, seed: int) -> bool:
        """Whether a method's last round is there."""
        return (method, self._settings(method), seed, self.rounds_of(method)) in kept.runs

    def _settings(self, method: str) -> str:
        """Return the digest of a method's settings; those of what trains here do not depend on the rounds."""
        if method == PROMPTFL:
            return settings_digest(SETTINGS)
        if method in METHODS:
            return settings_digest(METHODS[method])
        return head_settings(self.head_rounds, self.floors)

    def play_missing(self, maker: "LearnerMaker", sites: Sites, kept: Kept, state: Path) -> None:
        """Play what is missing: all methods with a seed before the next seed, so that they can be compared.

        The folder `state` is where the learners' states lie.
        """
        state.mkdir(exist_ok=True)
        missing = [
            (method, seed)
            for seed in sites
            for method in self.methods
            if not self.is_finished(kept, method, seed)
        ]
        done = count()
        with progress_bar("methods and seeds") as progress:
            for method, seed in missing:
                progress(next(done), len(missing), f"{method}, seed {seed}")
                rounds = self.rounds_of(method)
                if method not in TRAINED_HERE:
                    kept.add(play_heads(method, maker.pool, sites[seed], seed, rounds, self.floors))
                    continue
                play(
                    maker.learner(method),
                    method,
                    self._settings(method),
                    sites[seed],
                    maker.pool.global_test is not None,
                    seed,
                    rounds,
                    state / f"{method}-{seed}.pt",
                    kept.add,
                )


@dataclass(frozen=True)
class LearnerMaker:
    """Makes learners; what they share is loaded when the first one needs it."""

    data: Path
    model: str
    pretrained: str | None
    bundle: Bundle
    pool: FeaturePool
    device: str

    def learner(self, method: str) -> Learner:
        """Return a method's learner."""
        if method == PROMPTFL:
            return PromptLearner(self.bundle, self.pool, device=self.device)
        return EncoderLearner(
            METHODS[method],
            self._classifier,
            self._images,
            self.pool.labels,
            self.pool.logit_scale,
            self.device,
        )

    @cached_property
    def _loaded(self) -> LoadedModel:
        return load_model(self.model, self.pretrained)

    @cached_property
    def _images(self) -> PoolImages:
        return images_of_pool(self.data, self.bundle.manifest, self.pool)

    def _classifier(self) -> ImageClassifier:
        return ImageClassifier(
            copy.deepcopy(self._loaded.network.visual),
            self._loaded.preprocessing,
            torch.from_numpy(self.pool.class_embeddings),
        )

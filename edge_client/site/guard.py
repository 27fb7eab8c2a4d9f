"""Which heads answer at a site: the best that there were on its own validation split, or zero-shot.

It decides who answers, not what trains: the federation goes on from its newest head. So a round that ruins
the head, by accident or on purpose, does no harm to a hospital's answers that its own images can show.

The score is balanced accuracy, the mean recall of the classes in the split: by plain accuracy, a head that
calls everything by the most frequent class would pass for a good one. The newer answers unless it is worse:
in a small split ties are frequent, and more rounds of learning need no other merit. Nothing is tuned.

What answers is written with the assurance that the same split and the training images give. So the split has
also chosen what it is to calibrate: `docs/explanation/when-it-does-not-know.md` says what that means.
"""

import logging
from dataclasses import replace
from pathlib import Path

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS, AssuranceSettings
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.heads_file import Heads, load_heads, save_heads
from fedmedclip.edge_client.inference.evaluation import evaluate
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.heads_file import Judgement
from fedmedclip.protocol.signature import SigningKey

log = logging.getLogger("fedmedclip.site")


class Guard:
    """Keeps a site's heads file, signed with `key`.

    `validation` is the split that decides; without images the newest answer. Of it and the `training` images
    the file has an assurance, as `settings` say; of none without either.
    """

    def __init__(
        self,
        path: Path,
        bundle: Bundle,
        validation: LabelledFeatures,
        key: SigningKey | None = None,
        training: LabelledFeatures | None = None,
        settings: AssuranceSettings = DEFAULT_SETTINGS,
    ) -> None:
        self._path = path
        self._bundle = bundle
        self._validation = validation
        self._key = key
        self._settings = settings
        self._calibration = _grouped(validation)
        self._reference = None
        if training is not None and len(training.labels):
            self._reference = ReferenceImages(_grouped(training), len(bundle.manifest.class_names))
        self._said: tuple[bool, int] | None = None

    def judge(self, newest: Heads) -> Heads:
        """Compare the newest heads with those in the file, write the better ones, and return them.

        Raises HeadError when they cannot be written.
        """
        newest, kept = self._judged(newest), self._kept()
        best = newest
        if kept is not None and _score(kept) > _score(newest):
            best = kept
        if self._reference is None:
            best = replace(best, assurance=None)
        else:
            best = assured(best, self._bundle, self._calibration, self._reference, self._settings)
        save_heads(self._path, best, self._bundle, self._key)
        self._say(best, newest)
        return best

    def _kept(self) -> Heads | None:
        """Return the heads in the file, judged by the split as it is now; None where none can be used."""
        if not self._path.exists() or len(self._validation.labels) == 0:
            return None
        try:
            return self._judged(load_heads(self._path, self._bundle))
        except HeadError as error:
            log.warning("%s; the newest heads take its place", error)
            return None

    def _judged(self, heads: Heads) -> Heads:
        labels = self._validation.labels
        if len(labels) == 0:
            return heads
        figures = evaluate(heads, self._bundle, self._validation.embeddings, labels)
        scores = figures["ensemble"].balanced_accuracy, figures["zero_shot"].balanced_accuracy
        return replace(heads, judgement=Judgement(len(labels), *scores))

    def _say(self, best: Heads, newest: Heads) -> None:
        """Log what answers in place of the newest heads, once until that changes."""
        judgement, replaced = best.judgement, newest.judgement
        if judgement is None or replaced is None:
            found = (False, -1)
            words = "the validation split has no images: the newest version answers, whatever it is worth"
        elif judgement.zero_shot_answers:
            found = (True, -1)
            words = (
                f"no version yet is as good as zero-shot on the {judgement.images} images of the validation "
                f"split (balanced accuracy {judgement.heads:.3f}, zero-shot {judgement.zero_shot:.3f}): "
                "zero-shot answers"
            )
        else:
            found = (False, best.version)
            words = (
                f"version {newest.version} is worse than version {best.version} on the {judgement.images} "
                f"images of the validation split (balanced accuracy {replaced.heads:.3f}, before "
                f"{judgement.heads:.3f}): version {best.version} goes on answering"
            )
        news = None if found == (False, newest.version) else found
        if news is not None and news != self._said:
            log.warning("%s", words, extra={"event": "version.guard_decided"})
        self._said = news


def _grouped(features: LabelledFeatures) -> GroupedImages:
    return GroupedImages.of(features.embeddings, features.labels, features.groups)


def _score(heads: Heads) -> float:
    return heads.judgement.heads if heads.judgement else 0.0

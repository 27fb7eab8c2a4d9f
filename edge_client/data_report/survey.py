"""Reading a site's files once: which are images, how they are stored, and which cannot be used."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from fedmedclip.edge_client.features.extraction import SkippedImage
from fedmedclip.edge_client.features.labelled import ReadImages
from fedmedclip.edge_client.images.appearance import Appearance, Appearances, appearance_of
from fedmedclip.edge_client.images.dataset import Dataset, LabelledImage
from fedmedclip.edge_client.images.opening import (
    UnreadableImageError,
    quiet_decoders,
    read_identified,
    stored_form,
)
from fedmedclip.edge_client.images.readers.address import archive_address, parse_address
from fedmedclip.edge_client.images.readers.archive import PARTS as ARCHIVE_PARTS
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.readers.stored_form import StoredForm
from fedmedclip.edge_client.images.reading import map_ahead

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SurveyedImage:
    """An image that can be read: its name and class, its identity, and how it is stored.

    `content_hash` and `key` are those of `opening.ImageIdentity`; `form` is None where the header does not
    tell it, or nobody asked.
    """

    image: LabelledImage
    content_hash: bytes
    key: bytes
    form: StoredForm | None = None


@dataclass(frozen=True)
class Survey:
    """All images of a data set that can be read, in its order, and what was skipped."""

    dataset: Dataset
    images: tuple[SurveyedImage, ...]
    skipped: tuple[SkippedImage, ...]


def survey_data(
    dataset: Dataset, settings: ReaderSettings, progress: Progress | None = None
) -> tuple[Survey, Appearances]:
    """Decode every image of a data set once, on a few threads; return also what its images look like.

    Files that cannot be read are skipped.
    """
    images: list[SurveyedImage] = []
    looks: list[Appearance] = []
    skipped: list[SkippedImage] = []
    look = partial(_look, settings=settings, form_of=_forms())
    with quiet_decoders(), closing(map_ahead(look, dataset.images)) as results:
        for result in results:
            if isinstance(result, SkippedImage):
                skipped.append(result)
            else:
                images.append(result[0])
                looks.append(result[1])
            if progress:
                progress(len(images) + len(skipped), len(dataset.images))
    return Survey(dataset, tuple(images), tuple(skipped)), Appearances.of(looks)


def survey_of(read: ReadImages) -> Survey:
    """Return the survey of images that were read before; how they are stored is not looked up."""
    images = (read.dataset.images[position] for position in read.positions)
    found = zip(images, read.content_hashes, read.keys, strict=True)
    return Survey(read.dataset, tuple(SurveyedImage(*one) for one in found), read.skipped)


def with_forms(survey: Survey) -> Survey:
    """Return a survey that says how its images are stored, by their headers alone."""
    paths = [found.image.path for found in survey.images]
    with quiet_decoders(), closing(map_ahead(_forms(), paths)) as forms:
        images = [replace(found, form=form) for found, form in zip(survey.images, forms, strict=True)]
    return replace(survey, images=tuple(images))


def _look(
    image: LabelledImage, settings: ReaderSettings, form_of: Callable[[Path], StoredForm | None]
) -> tuple[SurveyedImage, Appearance] | SkippedImage:
    try:
        identity, pixels = read_identified(image.path, settings)
    except UnreadableImageError as error:
        return SkippedImage(image.path, error.reason)
    found = SurveyedImage(image, identity.content_hash, identity.key, form_of(image.path))
    return found, appearance_of(pixels)


def _forms() -> Callable[[Path], StoredForm | None]:
    """Return `stored_form`, asked once for all images of a part of an archive."""

    @cache
    def of_archive(file: Path, kind: str) -> StoredForm | None:
        return stored_form(archive_address(file, kind, 0))

    def form_of(path: Path) -> StoredForm | None:
        address = parse_address(path)
        if address.kind in ARCHIVE_PARTS:
            return of_archive(address.file, str(address.kind))
        return stored_form(path)

    return form_of

"""What to know before heads that were adapted are believed, in lines for a person."""

from fedmedclip.edge_client.adaptation.findings import AdaptationFindings
from fedmedclip.edge_client.adaptation.place_images import PlaceImages
from fedmedclip.edge_client.heads.heads_file import Heads

FEW_IMAGES = 16
"""Fewer say too little of their scanner."""


def remarks_on(heads: Heads, place: PlaceImages, findings: AdaptationFindings, missing: int) -> list[str]:
    """Return what a person should know of the images, of the list of labels, of which `missing` rows have no
    label yet, and of the heads that were given.
    """
    remarks = []
    if len(place.paths) < FEW_IMAGES:
        remarks.append(
            f"only {len(place.paths)} different images: fewer than {FEW_IMAGES} say too little of their "
            "scanner; give more, labels are not needed"
        )
    if missing:
        rows = "1 row of the list has" if missing == 1 else f"{missing} rows of the list have"
        remarks.append(f"{rows} no label yet")
    if (unread := place.unread_labels) == 1:
        remarks.append("1 label is of an image that cannot be read, and does not count")
    elif unread:
        remarks.append(f"{unread} labels are of images that cannot be read, and do not count")
    if heads.private is not None:
        remarks.append("the private head in the file is not used: the new one takes its place")
    if heads.zero_shot_answers:
        remarks.append("its site had found zero-shot better than the heads in the file")
    if heads.assurance is not None:
        remarks.append(
            "the file's prediction sets are those of the heads before, and go no further: "
            "`fedmedclip calibrate` makes them for the new ones"
        )
    remarks += [
        f"each image is called {found.name}: what these say of their scanner cannot be told from what they "
        "say of their class; give images of other classes too"
        for found in findings.classes
        if found.adapted == 1
    ]
    return remarks

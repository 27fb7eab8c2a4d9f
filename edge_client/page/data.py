"""Drawing how good the site's images are: counts, and where the report with thumbnails lies."""

from fedmedclip.edge_client.page.view import Data, SiteView
from fedmedclip.protocol.pages.elements import Html, badge, element, facts, joined, table


def draw_data(view: SiteView, may_change: bool) -> Html:
    """Return the inside of "This hospital's images"."""
    data = view.data
    if data is None:
        return element("p", "There is no report on the images of this site.", class_="faint")
    skipped = sum(one.files for one in data.skipped)
    return joined(
        [
            element("p", *_worth_a_look(data)),
            facts(
                [
                    ("Images", f"{data.images}, {data.different} different"),
                    ("Skipped files", skipped),
                    ("Other files", data.ignored_files),
                    ("Groups (patients, look-alikes)", f"{data.groups}, the largest of {data.largest_group}"),
                    ("Copies (pairs)", data.copies),
                    ("Near-copies (pairs)", data.near_copies),
                    ("Look-alikes (pairs)", data.look_alikes),
                    ("Alike under two labels (pairs)", data.contradictory),
                    ("Test images with a mate in training", _mates(data)),
                ]
            ),
            table(
                "Images by class and part of the split",
                ["Class", "Images", "Different", "Groups", "Training", "Validation", "Test"],
                [
                    (one.name, one.images, one.different, one.groups, one.train, one.validation, one.test)
                    for one in data.classes
                ],
                numbers=range(1, 7),
            ),
            table("Skipped files, by reason", ["Reason", "Files"],
                  [(one.reason, one.files) for one in data.skipped], numbers=[1]),
            element("p", "File names and thumbnails are not here, but in the report on this machine's disk: ",
                    element("code", data.report)),
        ]
    )  # fmt: skip


def _worth_a_look(data: Data) -> list[Html | str]:
    if not data.remarks:
        return [badge("good", "Nothing stands out.")]
    things = "one thing" if data.remarks == 1 else f"{data.remarks} things"
    return [badge("waiting", f"The report on the images has {things} to look at.")]


def _mates(data: Data) -> str | None:
    if data.tests is None or data.tests_with_mate is None:
        return None
    share = f" ({data.tests_with_mate / data.tests:.0%})" if data.tests else ""
    return f"{data.tests_with_mate} of {data.tests}{share}"

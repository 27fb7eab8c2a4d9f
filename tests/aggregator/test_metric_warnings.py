"""The coordinator hears where a site gets worse by more than chance, and where a version is not used."""

import pytest

from fedmedclip.aggregator.metric_warnings import largest_chance_drop, metric_warnings, worse_site
from fedmedclip.aggregator.store import Quarantine
from tests.aggregator.metrics import tell, tell_all


def told(store, *shares, images=100):
    for version, share in enumerate(shares):
        tell(store, "site-a", version, share, images=images)
    return metric_warnings(store)


def test_a_site_that_gets_worse_twice_running_is_named_with_the_figures(store):
    assert told(store, 0.9, 0.9, 0.9, 0.6) == []
    assert told(store, 0.9, 0.9, 0.9, 0.6, 0.6) == [
        "site-a gets worse: balanced accuracy 0.600 and 0.600 with versions 3 and 4, 0.900 before; 0.090 "
        "less may be chance with 100 images of its validation split"
    ]
    tell(store, "site-a", 5, 0.85)
    assert metric_warnings(store) == []


@pytest.mark.parametrize("images", [8, 20])
def test_what_chance_explains_with_few_images_is_no_warning(store, images):
    assert told(store, 0.9, 0.9, 0.9, 0.75, 0.75, images=images) == []


def test_with_many_images_or_an_untold_number_less_is_enough(store):
    assert told(store, 0.9, 0.9, 0.9, 0.85, 0.85, images=2000) != []
    tell_all(store, [])
    for version, share in enumerate((0.9, 0.9, 0.75, 0.75)):
        tell(store, "site-b", version, share, images=None)
    assert worse_site(store.metrics, "site-b").endswith("with the images of its validation split")


def test_what_it_was_is_the_median_so_that_one_lucky_version_is_no_measure(store):
    assert told(store, 0.7, 0.7, 0.95, 0.7, 0.7, 0.7, 0.7) == []


def test_a_slow_fall_is_seen_too(store):
    assert told(store, *(0.9 - 0.03 * version for version in range(8)), images=400) != []


def test_the_largest_drop_by_chance_is_two_standard_errors_of_a_difference():
    assert largest_chance_drop(0.5, 100) == pytest.approx(2 * (2 * 0.25 / 100) ** 0.5)
    assert largest_chance_drop(1.0, 100) > 0


def test_who_is_in_quarantine_is_not_named(store):
    assert told(store, 0.9, 0.9, 0.9, 0.6, 0.6) != []
    store.quarantine("site-a", Quarantine("odd", 1.0))
    assert metric_warnings(store) == []
    assert worse_site(store.metrics, "site-a") == ""


def test_where_the_newest_version_is_not_activated_is_said_in_one_line(store):
    tell(store, "site-a", 3, 0.7, active=1, verdict=2)
    assert metric_warnings(store) == ["version 3 is not activated at site-a (set aside); version 1 answers"]
    tell(store, "site-b", 3, 0.7)
    for index in range(12):
        tell(store, f"site-c{index:02}", 3, 0.7, active=1, verdict=3)
    (line,) = metric_warnings(store)
    assert line.startswith("version 3 is not activated at 13 of 14 sites: site-a, site-c00, ")
    assert line.endswith("site-c08, ...")
    tell(store, "site-a", 4, 0.7)
    assert metric_warnings(store) == []
    # Nobody has judged it: it was not held back.
    tell(store, "site-b", 4, 0.7, active=3, verdict=0)
    assert metric_warnings(store) == []

"""Means with bounded weights, the worst site, and a best version that no site chooses alone."""

import json
from contextlib import closing

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedmedclip.aggregator.chosen_version import chosen_version
from fedmedclip.aggregator.store import Quarantine, Store, StoredHead, StoredVersion
from fedmedclip.aggregator.version_metrics import best_version, site_metrics, version_figures, wilson
from fedmedclip.aggregator.versions_table import SharedFigures, print_figures, read_figures
from fedmedclip.protocol.database import IN_MEMORY
from fedmedclip.protocol.errors import InvalidInputError
from tests.aggregator.metrics import tell, tell_all
from tests.aggregator.test_store import PLAN


def made(store, versions):
    """Let a store have the heads of so many versions."""
    store.begin(PLAN, b"head", bytes(32))
    for version in range(1, versions):
        store.advance(StoredVersion(version, bytes(32), b"delta"), StoredHead(b"head", None, b""))
    return store


@pytest.fixture
def store(tmp_path):
    with closing(made(Store(tmp_path / "aggregator.db", durable=False), 10)) as store:
        yield store


def figures(store, version, **settings):
    return next(found for found in version_figures(store, **settings) if found.version == version)


def test_sites_count_by_their_validation_images_and_none_for_more_than_its_share(store):
    for site, share, images in (("a", 1.0, 50), ("b", 0.6, 30), ("c", 0.5, 20)):
        tell(store, site, 1, share, images=images)
    assert figures(store, 1).weighted_mean == pytest.approx(0.5 + 0.18 + 0.1)
    tell(store, "a", 2, 1.0, images=10**9)
    tell(store, "b", 2, 0.6, images=30)
    tell(store, "c", 2, 0.5, images=30)
    assert figures(store, 2).weighted_mean == pytest.approx((1.0 + 0.55) / 2)
    assert figures(store, 2, maximum_share=1 / 3).weighted_mean == pytest.approx((1.0 + 0.6 + 0.5) / 3)


def test_where_no_number_is_told_all_count_alike_and_nothing_has_an_interval(store):
    tell(store, "a", 1, 1.0, images=None)
    tell(store, "b", 1, 0.5, images=None)
    found = figures(store, 1)
    assert (found.weighted_mean, found.interval, found.worst_interval) == (0.75, None, None)


def test_the_worst_site_and_who_tells_and_who_uses_the_version(store):
    tell(store, "a", 1, 0.8)
    tell(store, "b", 1, 0.7, active=0, verdict=2)
    tell(store, "c", 1, None)
    found = figures(store, 1)
    assert (found.worst_site, found.worst) == ("b", 0.7)
    assert (found.sites, found.sharing, found.activated) == (2, 3, 2)
    low, high = found.interval
    assert low < 0.75 < high
    assert found.worst_interval == wilson(0.7, 100)


@pytest.mark.parametrize(("share", "images"), [(0.0, 8), (0.75, 48), (1.0, 1000)])
def test_intervals_are_wilsons(share, images):
    expected = binomtest(round(share * images), images).proportion_ci(method="wilson")
    assert wilson(share, images) == pytest.approx((expected.low, expected.high))


def test_what_a_site_shares_is_shown_with_intervals(store):
    tell(store, "a", 1, 0.5)
    tell(store, "a", 2, 0.75, active=1, verdict=9)
    found = site_metrics(store)["a"]
    assert (found.version, found.active, found.verdict) == (2, 1, "not judged")
    assert (found.train_images, found.validation_images, found.test_images) == (400, 100, None)
    assert found.classifiers.keys() == {"shared", "ensemble"}
    assert found.classifiers["ensemble"].balanced_accuracy_interval == wilson(0.75, 100)
    assert (found.classifiers["ensemble"].log_loss, found.classifiers["ensemble"].calibration_error) == (
        0.5,
        0.1,
    )
    assert site_metrics(store, 1)["a"].version == 1
    assert site_metrics(store, 7) == {}
    json.loads(msgspec.json.encode([version_figures(store), site_metrics(store)]))


def test_the_best_is_the_highest_mean_of_which_half_of_the_sites_tell(store):
    assert best_version(store) is None
    tell_all(store, [(0.5,) * 4, (0.7, 0.8, 0.7, 0.8), (0.6, 0.7, 0.6, 0.7), (1.0, None, None, None)])
    assert best_version(store) == 1
    assert [found.version for found in version_figures(store) if found.best] == [1]
    tell(store, "site-1", 3, 0.9)
    assert best_version(store) == 3


def test_of_two_sites_one_is_not_enough_and_alone_it_is(store):
    tell_all(store, [(0.5, 0.5), (0.9, None)])
    assert best_version(store) == 0
    store.metrics.forget_site("site-1")
    assert best_version(store) == 1


def test_of_equals_the_newest_is_the_best(store):
    tell_all(store, [(0.5, 0.9), (0.6, 0.9), (0.6, 0.9)])
    assert best_version(store) == 2


def test_a_version_whose_head_is_not_kept_is_not_the_best(store):
    tell_all(store, [(0.9, 0.9), (0.5, 0.5), (0.6, 0.6)])
    assert best_version(store) == 0
    store.forget_before(2)
    assert best_version(store) == 2


def test_who_is_in_quarantine_does_not_count_until_it_is_released(store):
    tell_all(store, [(0.5, 0.5, 0.9), (0.6, 0.6, 0.1)])
    store.quarantine("site-2", Quarantine("odd", 1.0))
    assert figures(store, 1).worst == 0.6
    store.release("site-2")
    assert figures(store, 1).worst == 0.1


def test_what_was_shared_is_there_after_a_restart_and_goes_with_its_run(store):
    tell_all(store, [(0.5, 0.5), (0.6, 0.6)])
    found = version_figures(store)
    with closing(Store(store.path)) as again:
        assert version_figures(again) == found
    store.begin_run(msgspec.structs.replace(PLAN, number=2), b"head", bytes(32))
    assert version_figures(store) == []


def test_damage_costs_the_figures_that_are_damaged(store):
    tell_all(store, [(0.5, 0.7)])
    with store._database.transaction() as database:
        database.execute("UPDATE metrics SET message = x'c1' WHERE site = 'site-0'")
    with closing(Store(store.path)) as again:
        assert (figures(again, 0).sites, figures(again, 0).worst) == (1, 0.7)


def test_a_later_word_of_a_site_replaces_the_earlier_and_never_the_other_way(store):
    assert tell(store, "a", 1, 0.5)
    assert tell(store, "a", 1, 0.7, number=2)
    for number in (0, 1, 2):
        assert not tell(store, "a", 1, 0.9, number=number)
    assert figures(store, 1).weighted_mean == 0.7


shares = st.integers(0, 200).map(lambda steps: steps / 200)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), st.integers(2, 5), st.integers(2, 6))
def test_no_site_chooses_the_best_alone_against_all_others(data, honest, versions):
    """Where all honest sites agree which version is the best, it is, whatever one more says."""
    best = data.draw(st.integers(0, versions - 1))
    with closing(made(Store(IN_MEMORY, durable=False), versions)) as store:
        for site in range(honest):
            usual = data.draw(shares.filter(lambda share: share < 1))
            for version in range(versions):
                lower = data.draw(st.integers(0, round(200 * usual))) / 200
                tell(store, f"site-{site}", version, usual + 1 / 200 if version == best else lower)
        for version in range(versions):
            tell(store, "liar", version, data.draw(shares), images=10**9)
        assert best_version(store) == best


def test_a_coordinator_names_the_best_version_by_that_word(store, tmp_path):
    file = tmp_path / "aggregator.toml"
    file.write_text('[federation]\nname = "trial"\nbundle = "bundle"\nrounds = 6\nstate = "."\n')
    with pytest.raises(InvalidInputError, match="no version is known to be the best"):
        chosen_version(file, "best")
    tell_all(store, [(0.5, 0.5), (0.7, 0.7), (0.6, 0.6)])
    assert chosen_version(file, "best") == 1
    assert chosen_version(file, "2") == 2
    for word in ("-1", "newest", "", "1e3", "1000001", "²"):
        with pytest.raises(InvalidInputError, match="is no version; give its number, or best"):
            chosen_version(file, word)


def test_the_versions_are_shown_to_a_person_and_to_a_program(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "aggregator.toml"
    file.write_text('[federation]\nname = "trial"\nbundle = "bundle"\nrounds = 6\nstate = "."\n')
    print_figures(read_figures(file))
    assert "no site has shared" in capsys.readouterr().out
    tell_all(store, [(0.5, 0.5), (0.7, 0.8)])
    tell(store, "site-1", 2, 0.4, active=1, verdict=2)
    figures = read_figures(file)
    print_figures(figures)
    printed = capsys.readouterr().out
    assert "1 (best)  2      0.750" in printed
    assert "site-1  2        set aside  version 1  " in printed
    assert "version 2 is not activated at site-1" in printed
    assert msgspec.json.decode(msgspec.json.encode(figures), type=SharedFigures) == figures

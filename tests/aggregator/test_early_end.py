"""A run ends when nothing gets better, and no site ends it alone."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.early_end import Patience, why_flat
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.database import IN_MEMORY
from tests.aggregator.metrics import tell, tell_all


def why(versions, *, patience=2, least=0.002, minimum_sites=2, since=0):
    with closing(Store(IN_MEMORY, durable=False)) as store:
        tell_all(store, versions)
        return why_flat(store.metrics, Patience(patience, least, minimum_sites, 0.5), since)


RISING = [(0.5, 0.6), (0.55, 0.65), (0.6, 0.7)]


def test_what_rises_goes_on_and_what_has_not_risen_for_so_many_versions_ends():
    assert why(RISING) == ""
    assert why([*RISING, (0.6, 0.7)]) == ""
    reason = why([*RISING, (0.6, 0.7), (0.595, 0.7)])
    assert reason == (
        "no version of the last 2 is better than version 2 by 0.002: balanced accuracy 0.650 on average, "
        "at best 0.650 since; 2 of 2 sites say that nothing got better for them"
    )
    assert why([*RISING, (0.6, 0.7), (0.61, 0.71)]) == ""


def test_too_small_a_rise_is_none():
    assert why([(0.5, 0.5), (0.51, 0.51), (0.52, 0.52)], least=0.05)
    assert not why([(0.5, 0.5), (0.51, 0.51), (0.52, 0.52)], least=0.005)


def test_versions_of_which_too_few_sites_tell_do_not_count():
    flat = [(0.6, 0.6, 0.6), (0.6, 0.6, None), (0.6, 0.6, None)]
    assert why(flat)
    assert not why(flat, minimum_sites=3)
    assert not why([(0.6, 0.6), (0.6, None), (0.6, None), (0.6, None)])
    assert not why([(0.6,), (0.6,), (0.6,)], minimum_sites=2)
    assert why([(0.6,), (0.6,), (0.6,)], minimum_sites=1)
    # One of which nobody tells is passed over.
    assert why([(0.6, 0.6), (None, None), (0.6, 0.6), (0.6, 0.6)])
    assert not why([(0.6, 0.6), (None, None), (0.6, 0.6)])


def test_of_a_run_that_was_ended_before_or_rolled_back_the_versions_since_count():
    flat = [(0.7, 0.7), (0.6, 0.6), (0.6, 0.6), (0.6, 0.6)]
    assert why(flat, since=0)
    assert why(flat, since=1)
    assert not why(flat, since=2)


def test_most_sites_have_to_say_so_whatever_the_mean_is():
    """One large site falls: the mean does not rise, though all others get better."""
    versions = [(0.9, 0.5, 0.5), (0.6, 0.55, 0.55), (0.5, 0.6, 0.6)]
    assert not why(versions)
    assert why([*versions, (0.5, 0.6, 0.6), (0.5, 0.6, 0.6)])


shares = st.integers(0, 200).map(lambda steps: steps / 200)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 3))
def test_no_site_ends_a_run_alone_while_the_others_get_better(data, honest, patience):
    versions = 2 * patience + 1
    with closing(Store(IN_MEMORY, durable=False)) as store:
        for version in range(versions):
            for site in range(honest):
                tell(store, f"site-{site}", version, 0.5 + 0.01 * version)
            if (share := data.draw(st.none() | shares)) is not None:
                tell(store, "liar", version, share, images=data.draw(st.sampled_from([None, 10**9])))
        assert why_flat(store.metrics, Patience(patience, 0.002, 1, 0.5), 0) == ""


def test_nothing_is_flat_where_nothing_is_told():
    assert why([]) == ""
    assert why([(None, None)]) == ""


@pytest.mark.parametrize("patience", [1, 5])
def test_it_takes_as_many_versions_as_was_asked_for(patience):
    flat = [(0.6, 0.6)] * patience
    assert not why(flat, patience=patience)
    assert why([*flat, (0.6, 0.6)], patience=patience)

"""What cannot be done with a sum alone is refused, in one line that says what to do."""

import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings, SecureSettings
from fedmedclip.protocol.errors import InvalidInputError


def configured(secure=None, **settings):
    federation = FederationSettings("trial", "bundle", 3, **{"minimum_sites": 3, **settings})
    return AggregatorConfiguration(federation, secure_aggregation=secure or SecureSettings())


def test_the_defaults_and_a_weighted_mean_go_together():
    assert configured().secure_aggregation.least_sites == 3
    configured(rule="weighted_mean:norm=3")


@pytest.mark.parametrize(
    "rule", ["clipped_mean", "krum", "coordinate_median", "fedadam", "trimmed_mean:share=0.2"]
)
def test_a_rule_that_looks_at_single_updates_is_refused(rule):
    with pytest.raises(InvalidInputError, match=r"looks at single updates, which .* hides; leave `rule` out"):
        configured(rule=rule)


@pytest.mark.parametrize("late", [{"buffer_size": 5}, {"maximum_staleness": 2}])
def test_late_updates_are_refused(late):
    with pytest.raises(InvalidInputError, match=f"{next(iter(late))} is for late updates"):
        configured(**late)


def test_fewer_sites_than_a_sum_takes_are_refused():
    with pytest.raises(InvalidInputError, match=r"minimum_sites is 2, .* give minimum_sites = 3"):
        configured(minimum_sites=2)


def test_a_codec_that_is_not_linear_is_refused():
    with pytest.raises(InvalidInputError, match="known"):
        SecureSettings(codec="lowrank")

"""What of [training] goes into a plan is what a plan may hold."""

import math

import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.protocol.errors import InvalidInputError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_setting_that_is_no_number_is_refused_in_one_line(value):
    with pytest.raises(InvalidInputError, match=r"\[training\] epsilon is .*; give a finite number"):
        AggregatorConfiguration(
            FederationSettings(name="trial", bundle="bundle", rounds=1), training={"epsilon": value}
        )

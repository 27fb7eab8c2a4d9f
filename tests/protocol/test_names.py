"""Names that may stand in topics."""

import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.site.configuration import SiteSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.topics import RESERVED_SITES, check_name

FEDERATION = {"name": "trial", "bundle": "bundle", "rounds": 1}


@pytest.mark.parametrize("name", [*sorted(RESERVED_SITES), "enrol-", "enrol-0123456789abcdef"])
def test_a_site_is_not_called_like_another_party(name):
    with pytest.raises(InvalidInputError, match=f"site name '{name}' is reserved.*take another, such as"):
        check_name("site", name)
    with pytest.raises(InvalidInputError, match="is reserved"):
        SiteSettings("trial", name, "bundle", "data")
    with pytest.raises(InvalidInputError, match="is reserved"):
        AggregatorConfiguration(FEDERATION, sites={name: "ab" * 32})


@pytest.mark.parametrize("name", ["hospital-a", "enrolment", "plan-b", "site-status", "0"])
def test_other_names_are_taken(name):
    assert check_name("site", name) == name


def test_a_federation_may_be_called_so():
    assert check_name("federation", "plan") == "plan"

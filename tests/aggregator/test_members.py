"""Who may join, under which name and key."""

from dataclasses import dataclass

import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.members import Members, Unable
from fedmedclip.protocol.messages import Join
from tests.protocol.moments import a_moment

BUNDLE, KEY, OTHER_KEY = b"b" * 32, b"\xab" * 32, b"\xcd" * 32
OPEN = AggregatorConfiguration(FederationSettings("trial", "unused", 3))


def listing(**sites):
    return AggregatorConfiguration(FederationSettings("trial", "unused", 3, enrolment="listed"), sites=sites)


def joining(key=KEY, bundle=BUNDLE, cannot=""):
    return Join(key, bundle, 100, -1, "1.0", cannot, a_moment(), 1)


@dataclass
class Admission:
    members: Members

    def reason(self, site="a", join=None, configuration=OPEN):
        self.members.configuration = configuration
        return self.members.reason_to_refuse(site, join or joining(), BUNDLE)


@pytest.fixture
def admission(store):
    return Admission(Members(store, OPEN))


def test_whoever_has_the_bundle_and_a_free_name_may_join(admission):
    assert admission.reason() == ""


def test_another_bundle_is_refused_with_both_digests(admission):
    reason = admission.reason(join=joining(bundle=bytes(32)))
    assert reason.startswith(f"the site's bundle has digest {bytes(8).hex()}, the federation uses 6262")


def test_a_name_belongs_to_the_first_key_also_after_a_restart(admission, store):
    admission.members.admit("a", joining())
    for members in (admission.members, Members(store, OPEN)):
        again = Admission(members)
        assert again.reason() == ""
        assert again.reason(join=joining(OTHER_KEY)) == (
            "the name 'a' belongs to another site (another key); choose another name"
        )
        assert again.reason("b", joining(OTHER_KEY)) == ""
        assert members.is_of_another("a", joining(OTHER_KEY))
        assert not members.is_of_another("a", joining())
        assert not members.is_of_another("b", joining(OTHER_KEY))


@pytest.mark.parametrize("written", [KEY.hex(), KEY.hex().upper()])
def test_with_a_list_only_the_listed_key_may_join(admission, written):
    assert admission.reason(configuration=listing(a=written)) == ""
    assert "is not on the aggregator's list" in admission.reason("b", configuration=listing(a=written))
    assert "is not on the aggregator's list" in admission.reason(
        join=joining(OTHER_KEY), configuration=listing(a=written)
    )
    assert "is not on" in admission.reason(configuration=listing())


def test_without_one_the_list_does_not_matter(admission):
    listed = AggregatorConfiguration(OPEN.federation, sites={"a": OTHER_KEY.hex()})
    assert admission.reason(configuration=listed) == ""


def test_a_join_is_logged_once(admission, caplog):
    caplog.set_level("INFO")
    admission.members.admit("a", joining())
    admission.members.admit("a", joining())
    assert caplog.text.count("a joined with 100 training images") == 1
    assert admission.members.keys == {"a": KEY}


def test_a_member_that_cannot_take_part_does_so_again_when_it_joins(admission):
    members = admission.members
    members.note_unable("a", joining(cannot="no room"))  # no member yet
    assert members.unable["a"] == Unable("1.0", "no room")
    members.admit("a", joining())
    assert members.takes_part("a")
    members.note_unable("a", joining(cannot="no room"))
    assert not members.takes_part("a")
    members.admit("a", joining())
    assert members.takes_part("a")

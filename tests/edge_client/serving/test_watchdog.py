"""Work without progress is found, whatever the clock does."""

from fedmedclip.edge_client.serving.watchdog import Watchdog


def test_only_what_comes_no_farther_for_the_whole_time_has_hung():
    watchdog = Watchdog(3)
    looks = [{"slow": n, "stuck": 1, **({"new": 0} if n > 2 else {})} for n in range(6)]
    found = [watchdog.hung(progress) for progress in looks]
    assert found == [[], [], [], ["stuck"], ["stuck"], ["stuck"]]


def test_what_came_back_after_it_was_gone_begins_anew():
    watchdog = Watchdog(2)
    found = [watchdog.hung(progress) for progress in ({"a": 0}, {"a": 0}, {}, {"a": 0}, {"a": 0}, {"a": 0})]
    assert found == [[], [], [], [], [], ["a"]]

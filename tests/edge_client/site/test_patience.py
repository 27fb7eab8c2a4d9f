"""How long a site waits for an aggregator that does not answer."""

from fedmedclip.edge_client.site.patience import Patience


def waits(patience, start, *, run_over, joined=False, most=1000):
    """Return for how many seconds it waits; None when it still does after `most`."""
    return next(
        (
            seconds
            for seconds in range(most)
            if patience.ends(joined=joined, run_over=run_over, now=start + seconds)
        ),
        None,
    )


def test_a_run_that_goes_on_is_waited_for_for_ever(caplog):
    caplog.set_level("INFO")
    patience = Patience("trial")
    patience.connected(0.0)
    assert waits(patience, 0.0, run_over=False) is None
    assert caplog.text.count("still waiting for an answer") == 5


def test_a_run_that_is_over_needs_an_answer_for_a_while_only():
    patience = Patience("trial")
    patience.connected(5.0)
    assert waits(patience, 5.0, run_over=True) == 20
    assert waits(Patience("trial"), 0.0, run_over=True) == 60


def test_a_late_connection_gets_time_to_show_a_later_run_but_no_number_of_them_for_ever():
    patience = Patience("trial")
    assert waits(patience, 0.0, run_over=True, most=30) is None
    patience.connected(30.0)
    assert waits(patience, 30.0, run_over=True) == 20
    patience = Patience("trial")
    for second in range(0, 60, 10):
        patience.connected(float(second))
        assert waits(patience, float(second), run_over=True, most=5) is None
        patience.disconnected()
    assert waits(patience, 60.0, run_over=True) == 0


def test_an_answer_begins_the_wait_anew():
    patience = Patience("trial")
    patience.connected(0.0)
    assert waits(patience, 0.0, run_over=True, most=19) is None
    assert not patience.ends(joined=True, run_over=True, now=19.0)
    assert waits(patience, 40.0, run_over=True) == 20

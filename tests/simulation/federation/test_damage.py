"""What a disk or another's code damages is named, and fetched again where somebody has it."""

import pytest

from fedmedclip.protocol.errors import AggregationError, StorageError
from tests.simulation.federation.loopback import Loopback, play_to


@pytest.mark.parametrize("column", ["shared_head", "private_head", "residual"])
def test_a_flipped_bit_at_a_site_is_noticed(tmp_path, column, caplog):
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 2)
    state = federation.states["site-0"]
    (stored,) = state._database.row(f"SELECT {column} FROM site")
    flipped = bytes([stored[0] ^ 1]) + stored[1:]
    with state._database.transaction() as database:
        database.execute(f"UPDATE site SET {column} = ?", (flipped,))
    if column == "shared_head":
        federation.start_site("site-0")
        assert "the shared head is damaged" in caplog.text
        federation.run()
        assert federation.final_digest()
    else:
        with pytest.raises(StorageError, match="private head is damaged"):
            federation.start_site("site-0")


def test_a_shared_head_that_is_damaged_into_another_length_is_fetched_again(tmp_path):
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 2)
    federation.states["site-0"]._database.rows("UPDATE site SET shared_head = x'00'")
    federation.start_site("site-0")
    federation.run()
    assert federation.final_digest()


def test_a_stored_update_of_nobody_is_dropped_at_the_start(tmp_path, caplog):
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 2)
    federation.store.add_update(3, "nobody", 10, b"update")
    federation.kill("aggregator")
    assert "the stored update of nobody for round 3 is of nobody" in caplog.text
    federation.run()
    assert federation.final_digest()


def test_a_flipped_bit_in_the_aggregators_head_is_named(tmp_path):
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 2)
    (stored,) = federation.store._database.row("SELECT head FROM federation")
    with federation.store._database.transaction() as database:
        database.execute("UPDATE federation SET head = ?", (bytes([stored[0] ^ 1]) + stored[1:],))
    with pytest.raises(StorageError, match="global head is damaged"):
        federation.store.head()


def damage_first_update(federation):
    """Step until a site has delivered for the open round, damage what is stored, and return the site."""
    for _ in range(200):
        if stored := federation.store.stored_updates():
            break
        federation.step()
    (site, _), *_ = stored
    with federation.store._database.transaction() as database:
        database.execute("UPDATE updates SET payload = zeroblob(length(payload))")
    return site


def test_an_update_that_the_aggregators_disk_damages_is_sent_again(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=3)
    play_to(federation, 1)
    site = damage_first_update(federation)
    federation.run()
    assert f"the stored update of {site} for round 2 is damaged" in caplog.text
    assert federation.final_digest()
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Loopback(tmp_path / "undisturbed", sites=3, rounds=3, keys_of=federation)
    undisturbed.run()
    assert undisturbed.final_digest() == federation.final_digest()


def test_a_damaged_update_of_a_site_that_is_gone_holds_nobody_up(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    play_to(federation, 1)
    site = damage_first_update(federation)
    del federation.agents[site]
    federation.run()
    assert federation.final_digest()


def test_a_rule_that_fails_ends_the_aggregator_and_no_update_is_lost(tmp_path, monkeypatch):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    play_to(federation, 1)

    class Fails:
        name = "theirs"

        def __call__(self, updates, specification, state):
            raise AggregationError("aggregation rule 'theirs' failed")

    monkeypatch.setattr(federation.coordinator.global_head, "rule", Fails())
    with pytest.raises(AggregationError):
        federation.run()
    assert len(federation.store.stored_updates()) == 2
    # Mended, and started again: the last event closes the round.
    federation.kill("aggregator")
    federation.run()
    assert federation.final_digest()

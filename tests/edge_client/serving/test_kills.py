"""A real service with all its doors, killed at random moments: nothing lost, twice, wrong, or left."""

import pytest

from benchmarks.serving.kills import play_kills
from tests.edge_client.conftest import write_image, write_tiny_bundle


@pytest.mark.slow
def test_nothing_is_lost_twice_or_wrong_after_ten_kills(tmp_path):
    pytest.importorskip("highdicom")
    write_tiny_bundle(tmp_path / "bundle")
    for number in range(6):
        write_image(tmp_path / "images" / f"{number}.jpg", number)
    found = play_kills(tmp_path / "bundle", tmp_path / "images", tmp_path / "play", kills=10, seed=1)
    assert found["good"], found
    assert found["acknowledged"] > 10

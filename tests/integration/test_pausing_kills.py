"""SIGKILL of each process that has a part in a pause, at each state of it."""

import pytest
from counting import Counting, world
from pause_ordeal import HOLD_S, WHEN, WHO, strike

__all__ = ["world"]


@pytest.mark.timeout(240)
def test_whoever_is_killed_whenever_nobody_stands_still_for_ever_or_runs_twice(world, tmp_path):
    counting = Counting(world, tmp_path, pausing={"hold": f"{HOLD_S}s"})
    for when in WHEN:
        for who in WHO:
            try:
                strike(world, counting, who, when, tmp_path / "traces")
            except AssertionError as error:
                raise AssertionError(f"{who} killed when {when}: {error}") from error
    counting.checked()

"""Schedules: intervals that repeat."""

import numpy as np
import pytest

from trilemma.metrics.activity import Schedule


def schedule(seconds, load, held, asked):
    return Schedule(
        seconds=np.array(seconds, float),
        load_rps=np.array(load, float),
        held_replicas=np.array(held, float),
        asked_replicas=np.array(asked, float),
        reason="test",
    )


def test_the_mean_load_is_weighted_by_time():
    day = schedule([3600, 7200], [3, 0], [2, 2], [2, 1])
    assert (day.period_s, day.mean_load_rps) == (10800, 1.0)


@pytest.mark.parametrize(
    ("seconds", "held", "asked", "says"),
    [
        ([], [], [], "positive length"),
        ([0], [1], [1], "positive length"),
        ([-1], [1], [1], "positive length"),
        ([1], [1], [2], "exceeds"),
    ],
)
def test_impossible_schedules_are_refused(seconds, held, asked, says):
    with pytest.raises(ValueError, match=says):
        schedule(seconds, [1.0] * len(seconds), held, asked)

"""Whole units: against a count by hand, and the laws of a packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.cost.packing import paid_gpus, units_for

UNITS = st.sampled_from([1, 2, 4, 8, 72])
SHAPE = {"gpus_per_replica": st.integers(1, 32), "unit_gpus": UNITS, "box": st.sampled_from([4, 8, 72])}


@pytest.mark.parametrize(
    ("replicas", "size", "unit", "box", "units"),
    [
        (1, 4, 8, 8, 1),  # half a node
        (2, 4, 8, 8, 1),
        (4, 3, 8, 8, 2),  # two to a node, two GPUs left over in each
        (3, 8, 8, 8, 3),
        (1, 4, 1, 8, 4),  # single GPUs joined in one node
        (2, 3, 2, 8, 3),  # three pairs hold two replicas of three GPUs
        (1, 6, 4, 8, 2),
        (2, 6, 4, 8, 4),  # the rest of a node is too small for the second
        (1, 16, 8, 8, 2),  # spans two nodes
        (2, 12, 8, 8, 3),  # the second replica uses the rest of the second node
        (10, 8, 72, 72, 2),  # nine to a rack
        (1, 72, 72, 72, 1),
        (9, 4, 72, 8, 1),  # a rack of nine nodes
        (0, 4, 8, 8, 0),
    ],
)
def test_counted_by_hand(replicas, size, unit, box, units):
    assert units_for(np.array([float(replicas)]), gpus_per_replica=size, unit_gpus=unit, box=box)[0] == units


@given(replicas=st.integers(0, 200), **SHAPE)
def test_paid_covers_what_runs_and_never_shrinks(replicas, gpus_per_replica, unit_gpus, box):
    shape = {"gpus_per_replica": gpus_per_replica, "unit_gpus": unit_gpus, "box": box}
    counts = np.arange(replicas, replicas + 3, dtype=float)
    paid = paid_gpus(counts, **shape)
    assert (paid >= counts * gpus_per_replica).all()
    assert (np.diff(paid) >= 0).all()
    assert (paid % unit_gpus == 0).all()


@given(replicas=st.integers(0, 200), **SHAPE)
def test_never_fewer_units_than_the_gpus_fill(replicas, gpus_per_replica, unit_gpus, box):
    units = units_for(np.array([float(replicas)]), gpus_per_replica=gpus_per_replica, unit_gpus=unit_gpus, box=box)[0]
    least = -(-replicas * gpus_per_replica // unit_gpus)
    assert units >= least
    if unit_gpus % gpus_per_replica == 0 and box % gpus_per_replica == 0 and box >= unit_gpus:
        assert units == least


@given(low=st.integers(0, 50), part=st.floats(0, 1), **SHAPE)
def test_a_fraction_of_a_replica_is_a_fraction_of_the_time(low, part, gpus_per_replica, unit_gpus, box):
    shape = {"gpus_per_replica": gpus_per_replica, "unit_gpus": unit_gpus, "box": box}
    ends = paid_gpus(np.array([low, low + 1], dtype=float), **shape)
    paid = paid_gpus(np.array([low + part]), **shape)[0]
    assert paid == pytest.approx(ends[0] + part * (ends[1] - ends[0]), abs=1e-5)

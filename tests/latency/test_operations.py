"""Costs of operations: how they add up, and what binds them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trilemma.latency.gemm import roofline
from trilemma.latency.operations import Cost, nothing

PARTS = ("seconds", "memory_s", "compute_s", "link_s", "fixed_s")
works = st.one_of(st.just(0.0), st.floats(1e-9, 1e3))
factors = st.floats(0, 100)


def costs(n=3):
    part = arrays(np.float64, n, elements=st.floats(0, 1e3))
    return st.builds(Cost, seconds=part, memory_s=part, compute_s=part, link_s=part, fixed_s=part)


def run(memory_s, compute_s, launch_s=0.0):
    return roofline(np.array([memory_s]), np.array([compute_s]), launch_s=launch_s)


@given(works, works, st.floats(0, 1e-3))
def test_a_kernel_lies_between_the_longer_part_and_both_in_turn(memory_s, compute_s, launch_s):
    cost = run(memory_s, compute_s, launch_s)
    busy_s = cost.seconds[0] - cost.fixed_s[0]
    slack = 1e-12 * cost.seconds[0]
    assert max(memory_s, compute_s) * (1 - 1e-9) <= busy_s + slack
    assert busy_s <= (memory_s + compute_s) * (1 + 1e-9) + slack
    assert (cost.memory_s[0], cost.compute_s[0], cost.link_s[0], cost.fixed_s[0]) == (memory_s, compute_s, 0, launch_s)


@given(works, works, st.floats(1, 10), st.floats(1, 10))
def test_more_work_is_never_faster(memory_s, compute_s, more_bytes, more_flops):
    less = run(memory_s, compute_s).seconds[0]
    assert less <= run(memory_s * more_bytes, compute_s * more_flops).seconds[0] * (1 + 1e-12)


@pytest.mark.parametrize(
    ("memory_s", "compute_s", "binds"),
    [(0.4, 1e-6, "HBM bandwidth"), (4e-7, 1.0, "FLOPs"), (4e-10, 1e-12, "overhead")],
)
def test_the_longest_part_binds(memory_s, compute_s, binds):
    assert run(memory_s, compute_s, launch_s=1e-5).binds == binds


def test_the_link_binds_where_it_is_longest():
    part = np.ones(2)
    assert Cost(seconds=5 * part, memory_s=part, compute_s=part, link_s=2 * part, fixed_s=part).binds == "link"


@given(costs(), costs(), factors)
def test_costs_add_and_scale_part_by_part(one, two, factor):
    total = (one + two).scaled(factor)
    for part in PARTS:
        expected = factor * (getattr(one, part) + getattr(two, part))
        np.testing.assert_allclose(getattr(total, part), expected, rtol=1e-12)


@given(costs(), st.lists(factors, min_size=3, max_size=3))
def test_a_stretch_is_of_the_time_alone(cost, ratio):
    """The parts stay what the data sheet says, so that they say what binds."""
    stretched = cost.stretched(np.array(ratio))
    assert stretched.seconds.tolist() == (cost.seconds * ratio).tolist()
    assert stretched.binds == cost.binds
    for part in PARTS[1:]:
        assert getattr(stretched, part) is getattr(cost, part)


@given(costs((2, 4)), st.lists(st.integers(0, 100), min_size=2, max_size=2))
def test_kernels_are_totalled_by_their_calls(cost, calls):
    total = cost.total(np.array(calls, np.float64))
    for part in PARTS:
        first, second = getattr(cost, part)
        np.testing.assert_allclose(getattr(total, part), calls[0] * first + calls[1] * second, rtol=1e-12)


def test_nothing_takes_no_time():
    assert isinstance(nothing(4), Cost)
    assert [getattr(nothing(4), part).tolist() for part in PARTS] == [[0, 0, 0, 0]] * 5
    some = run(0.1, 0.2, 0.3)
    assert (some + nothing(1)).seconds.tolist() == some.seconds.tolist()

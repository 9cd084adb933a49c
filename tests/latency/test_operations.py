"""The roofline of one operation: bounded by its parts, monotonic in its work."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.latency.deployments import CATALOGUE
from trilemma.catalogue.efficiency import Roofline
from trilemma.latency.operations import Cost, all_reduce, kernel, nothing

H100 = CATALOGUE.accelerator("h100_sxm")
shares = st.floats(0.01, 1.0)
works = st.one_of(st.just(0.0), st.floats(1, 1e15))


@st.composite
def rooflines(draw):
    return Roofline(
        memory=draw(shares), compute=draw(shares), blend=draw(st.floats(1, 8)), fixed_s=draw(st.floats(0, 1e-3))
    )


def run(roofline, read_bytes, flops, calls=1.0):
    return kernel(H100, roofline, "bf16", read_bytes=np.array([read_bytes]), flops=np.array([flops]), calls=calls)


@given(rooflines(), works, works, st.integers(1, 100))
def test_a_kernel_lies_between_the_longer_part_and_both_in_turn(roofline, read_bytes, flops, calls):
    cost = run(roofline, read_bytes, flops, calls)
    longer, both = max(cost.memory_s[0], cost.compute_s[0]), cost.memory_s[0] + cost.compute_s[0]
    assert longer * (1 - 1e-9) <= cost.seconds[0] - cost.fixed_s[0] + 1e-12 * cost.seconds[0]
    assert cost.seconds[0] <= (both + cost.fixed_s[0]) * (1 + 1e-9)
    assert cost.fixed_s[0] == pytest.approx(calls * roofline.fixed_s)


@given(rooflines(), works, works, st.floats(1, 10), st.floats(1, 10))
def test_more_work_is_never_faster(roofline, read_bytes, flops, more_bytes, more_flops):
    less = run(roofline, read_bytes, flops).seconds[0]
    assert less <= run(roofline, read_bytes * more_bytes, flops * more_flops).seconds[0] * (1 + 1e-12)


@given(rooflines(), works, works)
def test_twice_the_calls_take_twice_as_long(roofline, read_bytes, flops):
    once, twice = (run(roofline, read_bytes, flops, calls).seconds[0] for calls in (1, 2))
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize(
    ("read_bytes", "flops", "binds"),
    [(1e12, 1e9, "HBM bandwidth"), (1e6, 1e15, "FLOPs"), (1e3, 1e3, "overhead")],
)
def test_the_longest_part_binds(read_bytes, flops, binds):
    assert run(Roofline(memory=0.8, compute=0.8, blend=2, fixed_s=1e-5), read_bytes, flops).binds == binds


def reduce(gpus, message_bytes=1e8, calls=1.0, accelerator=H100):
    return all_reduce(
        accelerator,
        Roofline(memory=0.7, compute=1.0, blend=1.0, fixed_s=4e-6),
        message_bytes=np.array([message_bytes]),
        gpus=gpus,
        calls=calls,
        network_share=0.7,
        network_s=3e-5,
    )


def test_an_all_reduce_moves_two_times_g_minus_one_over_g_of_the_message():
    """H100, 8 GPUs, 100 MB: 175 MB over 70% of 450 GB/s, and the latency of one collective."""
    assert reduce(8).seconds[0] == pytest.approx(1e8 * 2 * 7 / 8 / (450e9 * 0.7) + 4e-6)
    assert reduce(8).binds == "link"


def test_one_gpu_or_no_call_costs_nothing():
    assert reduce(1).seconds[0] == reduce(8, calls=0).seconds[0] == 0


def test_more_gpus_take_longer_and_leaving_the_domain_longest():
    inside = [reduce(g).seconds[0] for g in (2, 4, 8)]
    assert inside == sorted(inside)
    assert reduce(16).seconds[0] > 5 * inside[-1]
    wide = replace(H100, link_domain_gpus=16)
    assert reduce(16, accelerator=wide).seconds[0] < 1.2 * inside[-1]


def test_costs_add_and_scale_part_by_part():
    one, two = run(Roofline(memory=0.5, compute=0.5, blend=1, fixed_s=1e-6), 1e9, 1e12), reduce(4)
    total = (one + two).scaled(3)
    for part in ("seconds", "memory_s", "compute_s", "link_s", "fixed_s"):
        expected = 3 * (getattr(one, part) + getattr(two, part))
        np.testing.assert_allclose(getattr(total, part), expected, rtol=1e-12)
    assert isinstance(nothing(4), Cost)
    assert nothing(4).seconds.tolist() == [0, 0, 0, 0]

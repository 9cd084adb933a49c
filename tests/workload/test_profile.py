"""The trace's rate is the profile's peak or its mean, whatever the multipliers' scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.errors import InputError
from trilemma.workload.profile import DailyProfile

HOURLY = st.one_of(
    *(st.lists(st.floats(0, 100), min_size=n, max_size=n).filter(lambda m: max(m) > 1e-6) for n in (24, 168))
)


@given(HOURLY, st.floats(1e-3, 1e4))
def test_peak_or_mean_equals_the_trace(multipliers, rate):
    peak = DailyProfile(multipliers=tuple(multipliers), trace_is="peak").load_rps(rate)
    mean = DailyProfile(multipliers=tuple(multipliers), trace_is="mean").load_rps(rate)
    assert peak.size == mean.size == len(multipliers)
    assert peak.max() == rate
    assert mean.mean() == pytest.approx(rate)
    assert np.argmax(peak) == np.argmax(multipliers)


@given(HOURLY)
def test_the_scale_of_multipliers_does_not_matter(multipliers):
    for trace_is in ("peak", "mean"):
        one = DailyProfile(multipliers=tuple(multipliers), trace_is=trace_is)
        other = DailyProfile(multipliers=tuple(8 * m for m in multipliers), trace_is=trace_is)
        assert np.allclose(one.load_rps(3.0), other.load_rps(3.0), rtol=1e-12)
        assert one.peak_over_mean == pytest.approx(other.peak_over_mean)


def test_a_flat_day_is_the_trace_all_day():
    flat = DailyProfile(multipliers=(1,) * 24, trace_is="peak")
    assert set(flat.load_rps(5.5)) == {5.5}
    assert flat.peak_over_mean == 1
    assert flat.hours == 24


@pytest.mark.parametrize(
    ("multipliers", "trace_is", "where"),
    [
        ((1.0,) * 23, "peak", "profile.multipliers"),
        ((), "peak", "profile.multipliers"),
        ((0.0,) * 24, "peak", "profile.multipliers"),
        ((1.0,) * 23 + (-0.1,), "peak", "profile.multipliers[23]"),
        ((float("nan"),) + (1.0,) * 23, "mean", "profile.multipliers[0]"),
        ((1.0, float("inf")) + (1.0,) * 22, "mean", "profile.multipliers[1]"),
        (("1",) * 24, "mean", "profile.multipliers[0]"),
        ((1.0,) * 24, "median", "profile.trace_is"),
    ],
)
def test_bad_profiles_are_refused(multipliers, trace_is, where):
    with pytest.raises(InputError) as caught:
        DailyProfile(multipliers=multipliers, trace_is=trace_is)
    assert caught.value.where == where

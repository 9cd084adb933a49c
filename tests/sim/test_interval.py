"""Intervals around predictions, and what multiplies them to be safe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.catalogue.figure import Source
from trilemma.sim.interval import Estimate, around, margin

spreads = st.tuples(st.floats(0.1, 2), st.floats(0.5, 5)).map(lambda pair: (min(pair), max(pair) + 0.01))
confidences = st.floats(0.02, 0.98)


@given(st.floats(1e-3, 1e3), spreads, st.sampled_from(Source))
def test_the_median_lies_inside_its_interval(value, spread, source):
    estimate = around(value, spread, source)
    assert estimate.low <= estimate.value == value <= estimate.high


@given(spreads, st.sampled_from([Source.DERIVED, Source.VENDOR, Source.GUESS]))
def test_what_is_carried_over_is_less_certain(spread, source):
    own, theirs = around(1.0, spread, Source.FITTED), around(1.0, spread, source)
    assert theirs.low <= own.low
    assert theirs.high >= own.high
    assert around(1.0, spread, Source.MEASURED) == own
    assert theirs.high == pytest.approx(own.high**2)


@given(spreads, st.floats(1e-3, 1e3))
def test_the_interval_holds_four_fifths(spread, value):
    estimate = around(value, spread, Source.FITTED)
    assert estimate.at(0.9) == pytest.approx(estimate.high)
    assert estimate.at(0.1) == pytest.approx(estimate.low)
    assert estimate.at(0.5) == pytest.approx(estimate.value)


@given(spreads, st.sampled_from(Source), confidences, confidences)
def test_more_confidence_never_asks_for_a_smaller_margin(spread, source, one, other):
    low, high = (margin(spread, source, c) for c in (min(one, other), max(one, other)))
    assert low <= high * (1 + 1e-12)
    assert (margin(spread, source, 0.5), margin((1.0, 1.0), source, one)) == (1.0, 1.0)


def test_an_estimate_by_hand():
    estimate = Estimate(value=10.0, low=8.0, high=15.0)
    assert estimate.at(0.9) == pytest.approx(15)
    assert estimate.at(0.8) == pytest.approx(10 * 1.5 ** (0.8416 / 1.2816), rel=1e-4)

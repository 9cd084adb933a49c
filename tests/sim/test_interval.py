"""Intervals around predictions, and what multiplies them to be safe."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.catalogue.figure import Source
from trilemma.sim.interval import DOUBT, Error, Estimate

errors = st.builds(
    Error,
    mean=st.floats(-1, 1),
    deviation=st.floats(0.001, 1),
    quantiles=st.tuples(st.floats(-4, -0.1), st.floats(0.1, 4)),
)
confidences = st.floats(0.02, 0.98)
values = st.floats(1e-3, 1e3)


@given(values, errors, st.sampled_from(Source))
def test_the_median_lies_inside_its_interval(value, error, source):
    """The simulated number, corrected by what is known of measured over simulated."""
    estimate = error.doubted(source).around(value)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(value * exp(error.mean))


@given(values, errors)
def test_an_interval_is_as_wide_as_its_deviation_and_quantiles(value, error):
    estimate = error.around(value)
    low, high = error.quantiles
    assert estimate.low == pytest.approx(estimate.value * exp(low * error.deviation))
    assert estimate.high == pytest.approx(estimate.value * exp(high * error.deviation))
    exact = Error(mean=error.mean, deviation=0.0, quantiles=error.quantiles).around(value)
    assert exact.low == exact.value == exact.high


@given(values, errors, st.sampled_from(Source), st.sampled_from(Source))
def test_what_is_carried_over_is_less_certain(value, error, one, other):
    """And corrected as much: what is measured nearby says the same of the level."""
    better, worse = (error.doubted(source) for source in sorted((one, other)))
    assert better.mean == worse.mean == error.mean
    assert better.quantiles == worse.quantiles == error.quantiles
    assert error.deviation <= better.deviation <= worse.deviation
    assert worse.around(value).low <= better.around(value).low
    assert worse.around(value).high >= better.around(value).high


@given(errors, st.sampled_from([Source.DERIVED, Source.VENDOR, Source.GUESS]))
def test_doubt_adds_up_as_variances_do(error, source):
    doubted = error.doubted(source)
    assert doubted.deviation**2 == pytest.approx(error.deviation**2 + DOUBT[source] ** 2)
    assert doubted.deviation > error.deviation
    for measured in (Source.MEASURED, Source.FITTED):
        assert error.doubted(measured).deviation == pytest.approx(error.deviation)


@given(errors, values)
def test_the_interval_holds_four_fifths(error, value):
    estimate = error.around(value)
    assert estimate.at(0.9) == pytest.approx(estimate.high)
    assert estimate.at(0.1) == pytest.approx(estimate.low)
    assert estimate.at(0.5) == pytest.approx(estimate.value)


@given(errors, st.sampled_from(Source), confidences, confidences)
def test_more_confidence_never_asks_for_a_smaller_margin(error, source, one, other):
    doubted = error.doubted(source)
    low, high = (doubted.margin(c) for c in (min(one, other), max(one, other)))
    assert low <= high * (1 + 1e-12)
    assert doubted.margin(0.5) == 1.0
    assert Error(mean=error.mean, deviation=0.0, quantiles=error.quantiles).margin(one) == 1.0


@given(errors, confidences, values)
def test_a_margin_is_what_the_estimate_is_multiplied_by(error, confidence, value):
    """Not the simulated number: a candidate's steps are corrected before they meet a limit."""
    estimate = error.around(value)
    assert estimate.value * error.margin(confidence) == pytest.approx(estimate.at(confidence))


def test_an_estimate_by_hand():
    estimate = Estimate(value=10.0, low=8.0, high=15.0)
    assert estimate.at(0.9) == pytest.approx(15)
    assert estimate.at(0.8) == pytest.approx(10 * 1.5 ** (0.8416 / 1.2816), rel=1e-4)


def test_an_error_by_hand():
    """Measured runs lie 10% above the simulated ones, give or take 8%; the fattest tenth above 1.5 times that."""
    estimate = Error(mean=0.0953, deviation=0.08, quantiles=(-1.0, 1.5)).around(20.0)
    assert estimate.value == pytest.approx(22.0, rel=1e-3)
    assert estimate.low == pytest.approx(22.0 * 0.9231, rel=1e-3)
    assert estimate.high == pytest.approx(22.0 * 1.1275, rel=1e-3)

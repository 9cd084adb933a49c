"""Limits as people write them: what is accepted, what is refused and why, and the size of a miss."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.errors import InputError
from trilemma.metrics.limits import LATENCIES, Limit, Metric, Miss, RequestBounds, parse_limit, request_bounds
from trilemma.metrics.summary import judge


def limit(text: str) -> Limit:
    return parse_limit(text, where="limits[0]")


@pytest.mark.parametrize(
    ("text", "key", "bound", "spelling"),
    [
        ("ttft p99 <= 1 s", "ttft_p99_s", 1.0, "ttft p99 <= 1 s"),
        ("ttft p99 <= 500 msec", "ttft_p99_s", 0.5, "ttft p99 <= 500 ms"),
        ("  itl   p95<=40ms ", "itl_p95_s", 0.04, "itl p95 <= 40 ms"),
        ("TTFT P99 <= 1 S", "ttft_p99_s", 1.0, "ttft p99 <= 1 s"),
        ("itl p99.9 <= 60 ms", "itl_p99.9_s", 0.06, "itl p99.9 <= 60 ms"),
        ("itl p99.99 <= 60 ms", "itl_p99.99_s", 0.06, "itl p99.99 <= 60 ms"),
        ("tpot mean < 25 ms", "tpot_mean_s", 0.025, "tpot mean <= 25 ms"),
        ("tpot Mean <= 25 ms", "tpot_mean_s", 0.025, "tpot mean <= 25 ms"),
        ("e2e p50 <= 1.5 min", "e2e_p50_s", 90.0, "e2e p50 <= 90 s"),
        ("e2e p1 <= 250 us", "e2e_p1_s", 0.00025, "e2e p1 <= 250 us"),
        ("ttft p0.1 <= 1 s", "ttft_p0.1_s", 1.0, "ttft p0.1 <= 1 s"),
        ("itl p99 <= 33.333 ms", "itl_p99_s", 0.033333, "itl p99 <= 33.333 ms"),
        ("ttft p99 <= 999.9 ms", "ttft_p99_s", 0.9999, "ttft p99 <= 999.9 ms"),
        ("ttft p99 <= 1234.5 ms", "ttft_p99_s", 1.2345, "ttft p99 <= 1.2345 s"),
        ("deadline <= 100 min", "makespan_s", 6000.0, "deadline <= 6000 s"),
        ("deadline <= 6 h", "makespan_s", 21600.0, "deadline <= 6 h"),
        ("deadline < 2 days", "makespan_s", 172800.0, "deadline <= 48 h"),
        ("goodput >= 95%", "goodput_share", 0.95, "goodput >= 95%"),
        ("goodput > 0.995", "goodput_share", 0.995, "goodput >= 99.5%"),
        ("goodput >= 100 %", "goodput_share", 1.0, "goodput >= 100%"),
    ],
)
def test_accepted(text, key, bound, spelling):
    parsed = limit(text)
    assert (parsed.key, parsed.text) == (key, spelling)
    assert parsed.bound == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft p100 <= 1 s", "below p100"),
        ("ttft p0 <= 1 s", "above p0"),
        ("ttft p0.0 <= 1 s", "above p0"),
        ("ttft p1000 <= 1 s", "below p100"),
        ("ttft p-5 <= 1 s", "METRIC STAT"),
        ("ttft p <= 1 s", "percentile"),
        ("ttft p. <= 1 s", "percentile"),
        ("ttft p99. <= 1 s", "percentile"),
        ("ttft p9.9.9 <= 1 s", "percentile"),
        ("ttft p9_9 <= 1 s", "percentile"),
        ("ttft p1e1 <= 1 s", "percentile"),
        ("ttft p٩٩ <= 1 s", "percentile"),  # digits, but not those anybody means
        ("ttft pnan <= 1 s", "percentile"),
        ("ttft 99 <= 1 s", "percentile"),
        ("ttft median <= 1 s", "percentile"),
        ("ttft p 99 <= 1 s", "METRIC STAT"),
        ("ttft <= 1 s", "a statistic"),
        ("latency p99 <= 1 s", "one of ttft, itl, tpot, e2e, goodput, deadline"),
        ("ttft p99 >= 1 s", "'<=' for ttft"),
        ("ttft p99 > 1 s", "'<=' for ttft"),
        ("ttft p99 == 1 s", "METRIC STAT"),
        ("ttft p99 = 1 s", "METRIC STAT"),
        ("ttft p99 1 s", "METRIC STAT"),
        ("ttft p99 <= 500", "unit is missing"),
        ("ttft p99 <= 500 kb", "units known"),
        ("ttft p99 <= s", "a time with a unit"),
        ("ttft p99 <= 0 s", "above zero"),
        ("ttft p99 <= -1 s", "not negative"),
        ("ttft p99 <= nan s", "a time with a unit"),
        ("ttft p99 <= 1e999 s", "finite"),
        ("ttft p99 <=", "METRIC STAT"),
        ("goodput <= 95%", "goodput >= SHARE"),
        ("goodput p99 >= 95%", "goodput >= SHARE"),
        ("goodput >= 95", r"\(0%, 100%\]"),
        ("goodput >= 0%", r"\(0%, 100%\]"),
        ("goodput >= 101%", r"\(0%, 100%\]"),
        ("goodput >= nan%", "finite"),
        ("goodput >= 1 s", "a share"),
        ("deadline p99 <= 6 h", "without a statistic"),
        ("deadline >= 6 h", "'<=' for deadline"),
        ("deadline <= 6", "unit is missing"),
        ("", "METRIC STAT"),
        (None, "METRIC STAT"),
        (5, "METRIC STAT"),
        ({"ttft": "1 s"}, "METRIC STAT"),
    ],
)
def test_refused_with_the_place_and_the_reason(text, says):
    with pytest.raises(InputError, match=says) as caught:
        parse_limit(text, where="chat.yaml: limits[3]")
    assert caught.value.where == "chat.yaml: limits[3]"


@given(
    st.sampled_from(LATENCIES),
    st.one_of(st.just("mean"), st.integers(1, 999).map(lambda tenths: f"p{tenths / 10:g}")),
    st.integers(1, 10**12).map(lambda millionths: f"{millionths / 1e6:.6f}"),
    st.sampled_from(["us", "ms", "s", "min", "h"]),
)
def test_the_normalised_text_means_the_same_limit(metric, statistic, number, unit):
    parsed = limit(f"{metric} {statistic} <= {number} {unit}")
    again = limit(parsed.text)
    assert (again.metric, again.quantile) == (parsed.metric, parsed.quantile)
    assert again.bound == pytest.approx(parsed.bound, rel=2e-9)


@given(st.integers(1, 999))
def test_percentiles_become_quantiles(tenths):
    parsed = limit(f"ttft p{tenths / 10:g} <= 1 s")
    assert parsed.quantile == pytest.approx(tenths / 1000)
    assert parsed.key == f"ttft_p{tenths / 10:g}_s"


# Misses --------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e3))
def test_a_bound_is_kept_up_to_and_with_itself(value):
    ttft, goodput = limit("ttft p99 <= 1 s"), limit("goodput >= 50%")
    assert ttft.holds(value) == (value <= 1)
    assert goodput.holds(value) == (value >= 0.5)
    assert (ttft.excess(value) == 0) == ttft.holds(value)
    assert (goodput.excess(value) == 0) == goodput.holds(value)


@pytest.mark.parametrize(
    ("text", "value", "excess"),
    [
        ("ttft p99 <= 2 s", 2.6, 0.3),
        ("ttft p99 <= 2 s", 2.0, 0.0),
        ("deadline <= 1 h", 7200.0, 1.0),
        ("goodput >= 95%", 0.9, 0.05),
        ("goodput >= 95%", 0.99, 0.0),
        ("ttft p99 <= 2 s", math.inf, math.inf),
        ("ttft p99 <= 2 s", math.nan, math.inf),
        ("ttft p99 <= 2 s", None, math.inf),
        ("goodput >= 95%", None, math.inf),
        ("goodput >= 95%", math.nan, math.inf),
    ],
)
def test_excess(text, value, excess):
    assert limit(text).excess(value) == pytest.approx(excess)


@pytest.mark.parametrize(
    ("text", "got", "sentence"),
    [
        ("ttft p99 <= 1 s", 1.3, "ttft p99 <= 1 s missed: 1.3 s (30% over)"),
        ("goodput >= 95%", 0.9, "goodput >= 95% missed: 90.0% (5% under)"),
        ("itl p99 <= 60 ms", None, "itl p99 <= 60 ms missed: unmeasured"),
    ],
)
def test_a_miss_in_words(text, got, sentence):
    missed = limit(text)
    assert Miss(limit=missed, got=got, excess=missed.excess(got)).text == sentence


ASKED = (limit("ttft p99 <= 1 s"), limit("itl p99 <= 60 ms"), limit("goodput >= 95%"))


def test_judge_keeps_the_order_asked_and_what_is_unmeasured_misses():
    misses = judge({"itl_p99_s": 0.09, "goodput_share": 0.99}, ASKED)
    assert [(m.limit.metric, m.got) for m in misses] == [(Metric.TTFT, None), (Metric.ITL, 0.09)]
    assert misses[1].excess == pytest.approx(0.5)
    assert judge({"ttft_p99_s": 1.0, "itl_p99_s": 0.06, "goodput_share": 0.95}, ASKED) == ()
    assert judge({}, ()) == ()


def test_margins_multiply_what_is_compared_and_no_other():
    values = {"ttft_p99_s": 0.9, "itl_p99_s": 0.05, "goodput_share": 0.96}
    assert judge(values, ASKED) == ()
    assert judge(values, ASKED, margins={}) == ()
    (miss,) = judge(values, ASKED, margins={Metric.TTFT: 1.2, Metric.ITL: 1.1})
    assert (miss.limit.metric, miss.got) == (Metric.TTFT, pytest.approx(1.08))
    assert miss.excess == pytest.approx(0.08)
    assert judge(values | {"ttft_p99_s": None}, ASKED, margins={Metric.TTFT: 1.2})[0].got is None


@given(st.floats(0.01, 10), st.floats(1, 5), st.floats(1, 5))
def test_a_wider_margin_never_turns_a_miss_into_a_pass(value, one, other):
    values, low, high = {"ttft_p99_s": value}, min(one, other), max(one, other)
    few = judge(values, ASKED[:1], margins={Metric.TTFT: low})
    many = judge(values, ASKED[:1], margins={Metric.TTFT: high})
    assert len(few) <= len(many)


# Bounds of single requests -------------------------------------------------------------------------------------


def test_the_tightest_bound_of_each_kind_judges_a_request():
    texts = ("ttft p50 <= 1 s", "ttft p99 <= 3 s", "itl p99 <= 60 ms", "tpot mean <= 80 ms", "e2e p90 <= 1 min",
             "deadline <= 1 h", "goodput >= 95%")  # fmt: skip
    assert request_bounds(tuple(map(limit, texts))) == RequestBounds(ttft_s=1.0, tpot_s=0.06, e2e_s=60.0, done_s=3600.0)
    assert request_bounds(()) == RequestBounds()

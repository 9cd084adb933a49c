"""Synthetic loads: same seed same bits, streams apart, and the moments they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.tables import same
from trilemma.errors import InputError
from trilemma.workload.arrivals import PROCESSES, Arrivals, ClosedLoop, burstiness_of_cv
from trilemma.workload.lengths import (
    DISTRIBUTIONS,
    Empirical,
    Fixed,
    Geometric,
    LengthPairs,
    Lognormal,
    Uniform,
    empirical,
)
from trilemma.workload.requests import Requests
from trilemma.workload.statistics import index_of_dispersion, interarrival_cv
from trilemma.workload.streams import stream
from trilemma.workload.synthetic import generate

PROMPT, OUTPUT = Uniform(low=10, high=99), Lognormal(median=200, p95=900)
OPEN = [
    {"process": "poisson", "rate_per_s": 5.0},
    {"process": "gamma", "rate_per_s": 5.0, "burstiness": 0.25},
    {"process": "constant", "rate_per_s": 5.0},
]
ALL = [
    *({**way, "requests": 50} for way in OPEN),
    {"process": "batch", "requests": 50},
    {"process": "closed_loop", "requests": 50, "concurrency": 7},
]


@pytest.mark.parametrize("way", ALL, ids=lambda way: way["process"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(way):
    first, again, other = (generate(Arrivals(**way), PROMPT, OUTPUT, seed=seed) for seed in (3, 3, 4))
    assert same(first.requests, again.requests)
    assert not same(first.requests, other.requests)


def test_the_cases_cover_every_process():
    assert {way["process"] for way in ALL} == set(PROCESSES)


@given(st.integers(0, 2**32), st.sampled_from(OPEN), st.integers(1, 30), st.integers(0, 30))
def test_more_requests_are_an_extension(seed, way, n, more):
    short = generate(Arrivals(**way, requests=n), PROMPT, OUTPUT, seed=seed).requests
    long = generate(Arrivals(**way, requests=n + more), PROMPT, OUTPUT, seed=seed).requests
    assert same(long.take(slice(0, n)), short)


@given(st.integers(0, 2**32), st.sampled_from(OPEN), st.floats(10.0, 200.0))
def test_a_duration_cuts_the_same_stream(seed, way, duration_s):
    timed = generate(Arrivals(**way, duration_s=duration_s), PROMPT, OUTPUT, seed=seed).requests
    counted = generate(Arrivals(**way, requests=len(timed) + 1), PROMPT, OUTPUT, seed=seed).requests
    assert same(counted.take(slice(0, len(timed))), timed)
    assert timed.arrival_s[-1] <= duration_s < counted.arrival_s[-1]
    both = generate(Arrivals(**way, duration_s=duration_s, requests=5), PROMPT, OUTPUT, seed=seed).requests
    assert same(both, timed.take(slice(0, 5)))


def test_one_stream_never_moves_another():
    base = generate(Arrivals(process="poisson", rate_per_s=5.0, requests=50), PROMPT, OUTPUT).requests
    burst = generate(Arrivals(process="gamma", rate_per_s=5.0, burstiness=0.2, requests=50), PROMPT, OUTPUT).requests
    fixed = generate(Arrivals(process="poisson", rate_per_s=5.0, requests=50), Fixed(tokens=9), OUTPUT).requests
    assert np.array_equal(base.prompt_tokens, burst.prompt_tokens)
    assert np.array_equal(base.output_tokens, burst.output_tokens)
    assert np.array_equal(base.arrival_s, fixed.arrival_s)
    assert np.array_equal(base.output_tokens, fixed.output_tokens)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_poisson_has_its_rate_and_no_memory(seed):
    n, rate = 20_000, 5.0
    times = Arrivals(process="poisson", rate_per_s=rate, requests=n).draw(stream(seed, "workload.arrivals"))
    gaps = np.diff(times, prepend=0.0)
    # Four standard errors: of the mean gap 1/sqrt(n), of the gaps' CV 1/sqrt(n), of the dispersion sqrt(2/windows).
    assert gaps.mean() * rate == pytest.approx(1, abs=4 / math.sqrt(n))
    assert interarrival_cv(times) == pytest.approx(1, abs=4 / math.sqrt(n))
    assert index_of_dispersion(times, 10.0) == pytest.approx(1, abs=4 * math.sqrt(2 / (times[-1] / 10)))
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=4 / math.sqrt(n))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_gamma_shape(burstiness):
    n, rate = 40_000, 2.0
    gamma = Arrivals(process="gamma", rate_per_s=rate, burstiness=burstiness, requests=n)
    times = gamma.draw(stream(0, "workload.arrivals"))
    cv = 1 / math.sqrt(burstiness)
    assert n / times[-1] == pytest.approx(rate, rel=4 * cv / math.sqrt(n))
    assert interarrival_cv(times) == pytest.approx(cv, rel=0.03)
    assert burstiness_of_cv(cv) == pytest.approx(burstiness)


def test_gamma_of_shape_one_is_poisson():
    poisson = Arrivals(process="poisson", rate_per_s=2.0, requests=100).draw(stream(5, "workload.arrivals"))
    gamma = Arrivals(process="gamma", burstiness=1.0, rate_per_s=2.0, requests=100).draw(stream(5, "workload.arrivals"))
    assert np.array_equal(poisson, gamma)


def test_constant_arrivals_have_exactly_their_rate():
    requests = generate(Arrivals(process="constant", rate_per_s=4.0, duration_s=25.0), PROMPT, OUTPUT).requests
    assert len(requests) == 100
    assert requests.rate_per_s == 4.0


def test_batch_and_closed_loop_arrive_at_zero():
    batch = generate(Arrivals(process="batch", requests=9), PROMPT, OUTPUT)
    assert set(batch.requests.arrival_s) == {0.0}
    assert batch.closed_loop is None
    closed = generate(Arrivals(process="closed_loop", requests=9, concurrency=4), PROMPT, OUTPUT)
    assert set(closed.requests.arrival_s) == {0.0}
    assert closed.closed_loop == ClosedLoop(concurrency=4)


def test_uniform_lengths_fill_their_range():
    drawn = Uniform.of_ratio(10, 0.8).draw(stream(0, "x"), 3000)
    assert set(drawn.tolist()) == {8, 9, 10}
    assert np.bincount(drawn)[8:] == pytest.approx([1000] * 3, rel=0.12)
    assert Uniform.of_ratio(1, 0.0) == Uniform(low=1, high=1)


@pytest.mark.parametrize(
    "lengths",
    [Lognormal(median=1000, p95=4000), Lognormal(mean=1500.0, cv=1.2), Lognormal(median=800, sigma=0.5)],
    ids=["p95", "cv", "sigma"],
)
def test_lognormal_lengths_have_the_moments_asked_for(lengths):
    drawn = lengths.draw(stream(0, "x"), 100_000)
    assert drawn.mean() == pytest.approx(lengths.mean_tokens, rel=0.02)
    if lengths.median is not None:
        assert np.median(drawn) == pytest.approx(lengths.median, rel=0.02)
    if lengths.p95 is not None:
        assert np.percentile(drawn, 95) == pytest.approx(lengths.p95, rel=0.03)
    if lengths.cv is not None:
        assert drawn.std() / drawn.mean() == pytest.approx(lengths.cv, rel=0.05)


def test_lognormal_lengths_stay_inside_their_cut():
    drawn = Lognormal(median=100, sigma=3.0, minimum=50, maximum=200).draw(stream(0, "x"), 1000)
    assert (drawn.min(), drawn.max()) == (50, 200)
    assert Lognormal(median=2.0**31 - 1, sigma=100.0).draw(stream(0, "x"), 100).max() == 2**31 - 1


def test_empirical_lengths_are_the_values_given():
    drawn = empirical(np.array([3, 3, 90])).draw(stream(0, "x"), 3000)
    assert set(drawn.tolist()) == {3, 90}
    assert (drawn == 3).mean() == pytest.approx(2 / 3, abs=0.04)


def test_pairs_stay_together():
    seen = Requests(arrival_s=np.zeros(3), prompt_tokens=np.array([1, 2, 3]), output_tokens=np.array([10, 20, 30]))
    drawn = generate(Arrivals(process="batch", requests=200), LengthPairs.of(seen)).requests
    assert np.array_equal(drawn.output_tokens, 10 * drawn.prompt_tokens)
    assert set(drawn.prompt_tokens.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(
    "lengths",
    [
        Fixed(tokens=7),
        Uniform(low=5, high=9),
        Lognormal(mean=7.0, cv=0.1),
        Geometric(mean=7),
        Empirical(values=(7,)),
    ],
)
def test_every_distribution_knows_its_mean(lengths):
    assert lengths.mean_tokens == pytest.approx(7)
    assert type(lengths) in DISTRIBUTIONS.values()


def gamma(**change):
    return Arrivals(**{"process": "gamma", "rate_per_s": 5.0, "burstiness": 1.0, "requests": 9, **change})


def constant_for(duration_s):
    return Arrivals(process="constant", rate_per_s=5.0, duration_s=duration_s)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: gamma(process="poison"), "arrivals.process"),
        (lambda: gamma(rate_per_s=None), "arrivals.rate"),
        (lambda: gamma(rate_per_s=0.0), "arrivals.rate"),
        (lambda: gamma(rate_per_s=float("nan")), "arrivals.rate"),
        (lambda: gamma(rate_per_s=float("inf")), "arrivals.rate"),
        (lambda: gamma(burstiness=None), "arrivals.burstiness"),
        (lambda: gamma(burstiness=-1.0), "arrivals.burstiness"),
        (lambda: gamma(burstiness=1e-9), "arrivals.burstiness"),
        (lambda: gamma(requests=None), "arrivals"),
        (lambda: gamma(requests=0), "arrivals.requests"),
        (lambda: gamma(requests=2.5), "arrivals.requests"),
        (lambda: gamma(requests=10**12), "arrivals.requests"),
        (lambda: gamma(requests=None, duration_s=1e12), "arrivals.duration"),
        (lambda: gamma(concurrency=4), "arrivals.concurrency"),
        (lambda: gamma(process="poisson", burstiness=0.5), "arrivals.burstiness"),
        (lambda: gamma(process="batch", burstiness=None), "arrivals.rate"),
        (lambda: Arrivals(process="batch"), "arrivals.requests"),
        (lambda: Arrivals(process="closed_loop", requests=9), "arrivals.concurrency"),
        (lambda: Arrivals(process="closed_loop", requests=9, concurrency=True), "arrivals.concurrency"),
        (lambda: generate(constant_for(0.1), PROMPT, OUTPUT), "arrivals.duration"),
        (lambda: generate(gamma(), PROMPT, OUTPUT, seed=-1), "seed"),
        (lambda: Fixed(tokens=0), "tokens"),
        (lambda: Fixed(tokens=2**31), "tokens"),
        (lambda: Fixed(tokens=1.5), "tokens"),
        (lambda: Uniform(low=9, high=8), "high"),
        (lambda: Uniform.of_ratio(100, 1.1), "ratio"),
        (Lognormal, "lognormal"),
        (lambda: Lognormal(median=5, cv=1.0), "lognormal"),
        (lambda: Lognormal(median=5, p95=4), "p95"),
        (lambda: Lognormal(median=0, p95=4), "median"),
        (lambda: Lognormal(mean=5, cv=float("nan")), "cv"),
        (lambda: Lognormal(median=5, p95=6, minimum=3, maximum=2), "maximum"),
        (lambda: Empirical(values=()), "values"),
        (lambda: Empirical(values=(1, 0)), "values[1]"),
        (lambda: LengthPairs(prompt_tokens=np.zeros(0, int), output_tokens=np.zeros(0, int)), "lengths"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, where):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.where == where


def test_the_poisson_process_tolerates_its_own_burstiness():
    assert Arrivals(process="poisson", rate_per_s=1.0, burstiness=1.0, requests=5).closed_loop is None

"""What measured neighbours say of a run: the laws of a Gaussian process, and what a run shares with another."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.sim import neighbours
from trilemma.sim.neighbours import (
    BLOCK,
    DOUBLINGS,
    FACTORS,
    METRICS,
    NAMES,
    Neighbours,
    Process,
    Traits,
    covariance,
    load_neighbours,
    traits_of,
)

law = settings(max_examples=40, deadline=None)
TERMS = {
    "engine": 0.2,
    "engine model": 0.3,
    "engine model system precision": 0.15,
    "engine model split lengths load": 0.1,
}
NOISE = 0.03
PRIOR = float(np.sqrt(sum(d**2 for d in TERMS.values()) + NOISE**2))
RUN = {
    "engine": "vllm", "model": "llama", "system": "h100", "precision": "fp8", "speculative": "none",
    "engine_version": "0.10", "tp": 4, "ep": 1, "dp": 1, "isl": 1024, "osl": 1024, "concurrency": 64,
}  # fmt: skip
SIZES = st.sampled_from([1, 2, 3, 8, 100, 1024, 8192])
FACTOR_NAMES = (*NAMES, *FACTORS)


def run(**changes):
    return {**RUN, **changes}


@st.composite
def runs(draw):
    return {name: draw(st.sampled_from(["a", "b", "c"])) for name in NAMES} | {name: draw(SIZES) for name in DOUBLINGS}


def some_runs(least=1, most=12):
    return st.lists(runs(), min_size=least, max_size=most)


def measured(rows, log_ratios, noises=None) -> Neighbours:
    """Runs with the same ratios and noises in both metrics."""
    ratios = np.asarray(log_ratios, float)
    noise = np.full(len(rows), NOISE) if noises is None else np.asarray(noises, float)
    return Neighbours(
        Traits.of(rows),
        log_ratios=dict.fromkeys(METRICS, ratios),
        noises=dict.fromkeys(METRICS, noise),
        processes=dict.fromkeys(METRICS, Process(deviations=TERMS, noise=NOISE)),
    )


def tpot(known: Neighbours, *rows):
    """(means, deviations) of TPOT of `rows`."""
    found = known.correct(Traits.of(rows))["tpot"]
    return found.mean, found.deviation


def ratios_of(rows, seed=5):
    return np.random.default_rng(seed).normal(0, 0.3, len(rows))


# What runs share ---------------------------------------------------------------------------------------------------


@law
@given(some_runs(), some_runs())
def test_runs_share_between_nothing_and_all_of_a_factor(ours, theirs):
    a, b = Traits.of(ours), Traits.of(theirs)
    assert (len(a), len(b)) == (len(ours), len(theirs))
    for factor in FACTOR_NAMES:
        shared = a.shared(b, factor)
        assert shared.shape == (len(ours), len(theirs))
        assert (shared >= 0).all()
        assert (shared <= 1).all()
        assert shared == pytest.approx(b.shared(a, factor).T)
        assert np.diag(a.shared(a, factor)).tolist() == [1.0] * len(ours)


@law
@given(some_runs(), st.lists(st.lists(st.sampled_from(FACTOR_NAMES), min_size=1, max_size=4), min_size=1, max_size=5))
def test_covariance_is_symmetric_and_positive_semi_definite(rows, terms):
    deviations = {" ".join(term): 0.1 * (i + 1) for i, term in enumerate(terms)}
    traits = Traits.of(rows)
    own = covariance(traits, traits, deviations)
    assert own == pytest.approx(own.T, abs=1e-15)
    assert np.linalg.eigvalsh(own).min() > -1e-12
    assert np.diag(own) == pytest.approx(sum(d**2 for d in deviations.values()))  # nobody is nearer than oneself
    assert (own >= 0).all()
    assert (own <= np.diag(own)[0] * (1 + 1e-12)).all()


def test_a_name_is_shared_or_not_and_a_size_fades_with_doublings():
    near = Traits.of([run(), run(isl=2048), run(isl=4096), run(model="other"), run(tp=8, ep=8)])
    assert near.shared(near, "model")[0].tolist() == [1, 1, 1, 0, 1]
    lengths = near.shared(near, "lengths")[0]
    assert lengths == pytest.approx([1, np.exp(-0.5), np.exp(-2.0), 1, 1])  # one and two length scales of one doubling
    assert near.shared(near, "split")[0, 4] == pytest.approx(np.exp(-0.5 * ((1 / 1.5) ** 2 + (3 / 3) ** 2)))
    assert near.shared(near, "load")[0].tolist() == [1] * 5


def test_a_term_is_the_product_of_its_factors_and_terms_add_up():
    a, b = Traits.of([run()]), Traits.of([run(isl=2048, model="other"), run(isl=2048)])
    terms = {"engine": 0.2, "engine lengths": 0.3, "engine model": 0.4}
    fade = np.exp(-0.5)
    assert covariance(a, b, terms)[0] == pytest.approx([0.04 + 0.09 * fade, 0.04 + 0.09 * fade + 0.16])


@law
@given(
    some_runs(),
    some_runs(),
    st.lists(st.lists(st.sampled_from(FACTOR_NAMES), min_size=1, max_size=4, unique=True), max_size=6),
)
def test_covariance_is_what_its_terms_say_run_by_run(ours, theirs, terms):
    """Said plainly: no blocks by engine, no runs that differ in load alone taken together."""
    deviations = {" ".join(term): 0.1 * (i + 1) for i, term in enumerate(terms)}
    a, b = Traits.of(ours), Traits.of(theirs)
    expected = np.zeros((len(a), len(b)))
    for term, deviation in deviations.items():
        expected += deviation**2 * np.prod([a.shared(b, factor) for factor in term.split()], axis=0)
    assert covariance(a, b, deviations) == pytest.approx(expected, rel=1e-12, abs=1e-15)


# What they say of a run --------------------------------------------------------------------------------------------


@law
@given(some_runs(), st.data())
def test_a_run_measured_exactly_is_corrected_by_what_was_measured(rows, data):
    distinct = list({tuple(r.items()): r for r in rows}.values())
    ratios = ratios_of(distinct, data.draw(st.integers(0, 1000)))
    known = measured(distinct, ratios, np.full(len(distinct), 1e-5))
    mean, deviation = tpot(known, *distinct)
    apart = covariance(known.runs, known.runs, TERMS)
    if np.linalg.eigvalsh(apart).min() < 1e-6:  # runs that differ in nothing the terms see: nothing tells them apart
        return
    assert mean == pytest.approx(ratios, abs=0.02)
    assert deviation == pytest.approx(NOISE, rel=0.02)
    assert (deviation >= NOISE).all()


def test_a_run_measured_exactly_by_hand():
    known = measured([run(), run(model="other"), run(concurrency=512)], [0.3, -0.2, 0.1], [1e-6] * 3)
    mean, deviation = tpot(known, run(), run(model="other"), run(concurrency=512))
    assert mean == pytest.approx([0.3, -0.2, 0.1], abs=1e-6)
    assert deviation == pytest.approx([NOISE] * 3, rel=1e-6)


def test_far_from_all_runs_nothing_is_corrected_and_all_is_doubted():
    """Every term holds the engine: another engine's runs say nothing."""
    known = measured([run(), run(model="other"), run(tp=8)], [0.5, 0.4, 0.6])
    mean, deviation = tpot(known, run(engine="sglang"))
    assert mean.tolist() == [0.0]
    assert deviation == pytest.approx([PRIOR])


def test_corrections_fade_and_doubts_widen_with_distance():
    known = measured([run()], [0.5])
    steps = [run(), run(isl=2048), run(isl=8192), run(precision="bf16"), run(model="other"), run(engine="sglang")]
    mean, deviation = tpot(known, *steps)
    assert (np.diff(mean) < 0).all()
    assert (np.diff(deviation) > 0).all()


def test_one_run_of_doubtful_worth_counts_by_its_share_of_the_variance():
    variance = sum(d**2 for d in TERMS.values())
    for noise in (0.01, 0.1, 1.0):
        mean, deviation = tpot(measured([run()], [0.4], [noise]), run())
        assert mean == pytest.approx([0.4 * variance / (variance + noise**2)])
        left = variance + NOISE**2 - variance**2 / (variance + noise**2)
        assert deviation == pytest.approx([np.sqrt(left)])


def test_two_equal_runs_are_one_of_half_the_variance():
    twice = tpot(measured([run(), run()], [0.2, 0.4], [0.1, 0.1]), run(), run(isl=4096))
    once = tpot(measured([run()], [0.3], [0.1 / np.sqrt(2)]), run(), run(isl=4096))
    assert np.array(twice) == pytest.approx(np.array(once))


def test_a_models_level_comes_from_its_own_runs_and_not_from_a_crowd_of_others():
    crowd = [run(model=f"m{i}", concurrency=c) for i in range(8) for c in (16, 64, 256)]
    known = measured([*crowd, run()], [0.0] * len(crowd) + [0.4])
    mean, _ = tpot(known, run(), run(concurrency=128), run(model="new"))
    assert mean[0] > 0.3
    assert mean[1] > 0.25
    assert abs(mean[2]) < 0.1


@law
@given(some_runs(), some_runs(most=4))
def test_doubt_lies_between_the_noise_and_the_prior(rows, wanted):
    for noise in (1e-6, NOISE):  # runs measured nearly exactly leave rounding alone
        _, deviation = tpot(measured(rows, ratios_of(rows), np.full(len(rows), noise)), *wanted, *rows)
        assert (deviation >= NOISE).all()
    mean, deviation = tpot(measured(rows, ratios_of(rows)), *wanted)
    assert np.isfinite(mean).all()
    assert (deviation >= NOISE).all()
    assert (deviation <= PRIOR * (1 + 1e-9)).all()


@law
@given(some_runs(), some_runs(most=4), some_runs(most=4))
def test_more_runs_never_raise_the_doubt(rows, more, wanted):
    _, before = tpot(measured(rows, ratios_of(rows)), *wanted)
    both = [*rows, *more]
    _, after = tpot(measured(both, ratios_of(both)), *wanted)
    assert (after <= before + 1e-9).all()


@law
@given(some_runs(), some_runs(most=4))
def test_noisier_runs_never_lower_the_doubt(rows, wanted):
    _, clear = tpot(measured(rows, ratios_of(rows)), *wanted)
    _, noisy = tpot(measured(rows, ratios_of(rows), np.full(len(rows), 0.2)), *wanted)
    assert (noisy >= clear - 1e-9).all()


@law
@given(some_runs(least=2), some_runs(most=4), st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(rows, wanted, random):
    ratios, noises = ratios_of(rows), np.linspace(0.02, 0.2, len(rows))
    order = list(range(len(rows)))
    random.shuffle(order)
    one = tpot(measured(rows, ratios, noises), *wanted)
    other = tpot(measured([rows[i] for i in order], ratios[order], noises[order]), *wanted)
    assert np.array(other) == pytest.approx(np.array(one), abs=2e-9)


@law
@given(some_runs(), some_runs(most=4), st.floats(-3, 3))
def test_corrections_are_linear_in_what_was_measured_and_doubts_do_not_hang_on_it(rows, wanted, factor):
    ratios = ratios_of(rows)
    mean, deviation = tpot(measured(rows, ratios), *wanted)
    scaled, same = tpot(measured(rows, factor * ratios), *wanted)
    assert scaled == pytest.approx(factor * mean, abs=1e-8)  # both are rounded to 9 decimals
    assert same == pytest.approx(deviation)


@law
@given(some_runs(), some_runs(least=2, most=4))
def test_runs_are_corrected_one_by_one(rows, wanted):
    known = measured(rows, ratios_of(rows))
    together = np.array(tpot(known, *wanted))
    alone = np.concatenate([np.array(tpot(known, one)) for one in wanted], axis=1)
    assert together == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("count", [3, BLOCK + 1, 3 * BLOCK])
def test_corrections_are_those_of_the_textbook(count):
    """Mean k^T K^-1 y and variance k(x, x) - k^T K^-1 k, runs of other engines included."""
    terms = {**TERMS, "model system precision": 0.2, "lengths": 0.1, "model load": 0.1}
    random = np.random.default_rng(count)
    rows = [
        {name: str(random.choice(["a", "b", "c"])) for name in NAMES}
        | {name: int(random.choice([1, 2, 8, 100, 1024])) for name in DOUBLINGS}
        for _ in range(count + 20)
    ]
    measured_rows, wanted = rows[:count], [*rows[count:], run(engine="unknown")]
    ratios, noises = ratios_of(measured_rows), np.linspace(0.02, 0.2, count)
    process = Process(deviations=terms, noise=NOISE)
    known = Neighbours(
        Traits.of(measured_rows), log_ratios={"tpot": ratios}, noises={"tpot": noises}, processes={"tpot": process}
    )
    mean, deviation = tpot(known, *wanted)
    own = covariance(known.runs, known.runs, terms) + np.diag(noises**2)
    shared = covariance(Traits.of(wanted), known.runs, terms)
    left = sum(d**2 for d in terms.values()) + NOISE**2 - np.diag(shared @ np.linalg.solve(own, shared.T))
    assert mean == pytest.approx(shared @ np.linalg.solve(own, ratios), abs=2e-9)
    assert deviation == pytest.approx(np.sqrt(left), abs=2e-9)


def test_metrics_are_corrected_apart():
    known = Neighbours(
        Traits.of([run()]),
        log_ratios={"tpot": np.array([0.1]), "ttft": np.array([-0.6])},
        noises={"tpot": np.array([1e-4]), "ttft": np.array([1e-4])},
        processes={
            "tpot": Process(deviations={"engine": 0.2}, noise=0.01, quantiles=(-1.0, 2.0)),
            "ttft": Process(deviations={"engine": 0.5, "engine model": 0.5}, noise=0.3),
        },
    )
    found = known.correct(Traits.of([run(), run(model="other")]))
    assert found["tpot"].mean == pytest.approx([0.1, 0.1], abs=1e-6)
    assert found["ttft"].mean == pytest.approx([-0.6, -0.3], abs=1e-6)
    assert found["tpot"].deviation == pytest.approx([0.01, 0.01], rel=1e-3)
    assert found["ttft"].deviation[1] == pytest.approx(np.sqrt(0.5 + 0.09 - 0.125), rel=1e-3)
    second = found["ttft"].of(1)
    assert (second.mean, second.deviation) == (found["ttft"].mean[1], found["ttft"].deviation[1])
    assert found["tpot"].of(0).quantiles == (-1.0, 2.0)


def test_sizes_may_come_as_text():
    """As a file of comma-separated values has them."""
    text = {name: str(value) for name, value in RUN.items()}
    assert Traits.of([text]).sizes["concurrency"].tolist() == [6.0]
    assert covariance(Traits.of([text]), Traits.of([run()]), TERMS)[0, 0] == pytest.approx(PRIOR**2 - NOISE**2)


def test_traits_of_a_deployment():
    catalogue = load_catalogue()
    model = catalogue.model("deepseek-ai/DeepSeek-V3")
    d = Deployment(
        model=model,
        precision=catalogue.precision("fp8", model=model),
        accelerator=catalogue.accelerator("h200_sxm"),
        engine=catalogue.engine("sglang"),
        parallelism=Parallelism(tensor=4, pipeline=2, data=2, expert=8),
        knobs=SchedulerKnobs(max_num_batched_tokens=8192, max_num_seqs=256),
        speculative_mtp=True,
    )
    load = {"isl": 1000.0, "osl": 500.0, "concurrency": 32.0}
    found = traits_of(d, **load, engine_version="0.5")
    assert found == {
        "engine": "sglang", "model": model.name, "system": "h200_sxm", "precision": "fp8", "speculative": "mtp",
        "engine_version": "0.5", "tp": 8, "ep": 8, "dp": 2, **load,
    }  # fmt: skip
    same, unknown, other = (Traits.of([traits_of(d, **load, engine_version=v)]) for v in ("0.5", "", None))
    own = Traits.of([found])
    assert own.shared(same, "engine_version") == 1
    assert own.shared(unknown, "engine_version") == own.shared(other, "engine_version") == 0
    assert Traits.of([run(engine_version="")]).shared(unknown, "engine_version") == 1
    assert Traits.of([run(engine_version="")]).shared(other, "engine_version") == 0


# The files ---------------------------------------------------------------------------------------------------------


def test_runs_and_terms_are_read_from_their_files(tmp_path, monkeypatch):
    columns = [*NAMES, *DOUBLINGS, *(f"{m}_{what}" for m in METRICS for what in ("log_ratio", "noise"))]
    values = {"tpot_log_ratio": 0.25, "tpot_noise": 1e-4, "ttft_log_ratio": -0.5, "ttft_noise": 1e-4}
    rows = [{**run(), **values}, {**run(model="other"), **values, "tpot_log_ratio": -0.25}]
    (tmp_path / "data").mkdir()
    lines = [",".join(columns), *(",".join(str(row[c]) for c in columns) for row in rows)]
    (tmp_path / "data" / "residuals.csv").write_text("\n".join(lines) + "\n")
    tables = "".join(
        f'[{m}]\nnoise = 0.05\nquantiles = [-1.5, 1.0]\n[{m}.deviations]\nengine = 0.2\n"engine model" = 0.3\n'
        for m in METRICS
    )
    (tmp_path / "data" / "neighbours.toml").write_text(tables)
    monkeypatch.setattr(neighbours, "resources", SimpleNamespace(files=lambda _: tmp_path))
    found = load_neighbours.__wrapped__().correct(Traits.of([run(), run(model="other"), run(engine="new")]))
    assert found["tpot"].mean == pytest.approx([0.25, -0.25, 0.0], abs=1e-4)
    assert found["ttft"].mean == pytest.approx([-0.5, -0.5, 0.0], abs=1e-4)
    assert found["tpot"].deviation == pytest.approx([0.05, 0.05, np.sqrt(0.04 + 0.09 + 0.0025)], rel=1e-3)
    assert found["ttft"].quantiles == (-1.5, 1.0)

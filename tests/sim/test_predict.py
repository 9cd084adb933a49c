"""Closed-loop benchmarks and the predictions made of them."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.figure import Source
from trilemma.errors import UnsupportedError
from trilemma.latency.constants import efficiency_of
from trilemma.latency.step import StepModel
from trilemma.sim.benchmark import PROMPTS_PER_CLIENT, closed_loop, uniform_lengths
from trilemma.sim.engine import Policy
from trilemma.sim.interval import Error
from trilemma.sim.limits import POLICIES
from trilemma.sim.neighbours import Traits, load_neighbours, traits_of
from trilemma.sim.predict import (
    LEAST_SEATS,
    Configuration,
    Player,
    benchmark,
    corrected,
    deployment_of,
    predict_closed_loop,
    predict_open_loop,
    typical_of,
)

CATALOGUE = load_catalogue()


def configuration(
    model="meta-llama/Meta-Llama-3.1-70B", accelerator="h100_sxm", engine="vllm", precision="fp8", **rest
):
    architecture = CATALOGUE.model(model)
    return Configuration(
        model=architecture,
        accelerator=CATALOGUE.accelerator(accelerator),
        engine=CATALOGUE.engine(engine),
        precision=CATALOGUE.precision(precision, model=architecture),
        **{"isl": 1024, "osl": 128, "concurrency": 8, "tp": 4} | rest,
    )


CHAT = configuration()


def played(c):
    return Player().closed_loop(c)


def run_of(c):
    """The run behind a prediction, request by request."""
    steps, limits = Player().prepare(c)
    return benchmark(c, steps.table(), limits, steps.efficiency.engine).run


def engine_of(c):
    return efficiency_of(deployment_of(c)).engine


def errors_of(c) -> dict[str, Error]:
    """What measured runs say of a configuration, by metric."""
    load = {"isl": c.isl, "osl": c.osl, "concurrency": c.concurrency}
    traits = traits_of(deployment_of(c), **load, engine_version=c.engine_version)
    return {metric: found.of(0) for metric, found in load_neighbours().correct(Traits.of([traits])).items()}


# The benchmark -------------------------------------------------------------------------------------------------


def test_every_client_sends_ten_requests():
    timings = run_of(CHAT).timings
    assert len(timings) == 8 * PROMPTS_PER_CLIENT
    assert (timings.arrival_s == 0).sum() == 8
    assert timings.finished.all()


def test_one_client_is_the_sum_of_its_steps():
    """No queue: TTFT is one prefill step and the time before the scheduler, TPOT the mean decode step."""
    c = configuration(concurrency=1)
    efficiency = efficiency_of(deployment_of(c))
    table = StepModel(deployment_of(c), efficiency, typical_of(c)).table()
    prefill_ps = table.step_ps(prefill_tokens=1024, decodes=0, sampling=1, context_sum=0, pair_sum=1024 * 1025)
    decode_ps = [
        table.step_ps(prefill_tokens=0, decodes=1, sampling=1, context_sum=context + 1, pair_sum=0)
        for context in range(1024, 1024 + 127)
    ]
    result = played(c)
    assert result.ttft_s == pytest.approx(prefill_ps * 1e-12 + efficiency.engine.request_s, rel=1e-9)
    assert result.tpot_s == pytest.approx(np.mean(decode_ps) * 1e-12, rel=1e-9)


@pytest.mark.parametrize("clients", [1, 8, 32])
def test_tokens_per_second_are_the_run_s_own(clients):
    """Little's law on the means gives the run's throughput up to the last round, which empties the server."""
    c = configuration(concurrency=clients, osl=256)
    result, run = played(c), run_of(c)
    run_s = run.span_s + PROMPTS_PER_CLIENT * engine_of(c).request_s
    tokens = run.timings.output_tokens.sum()
    assert result.typical_batch == max(1, round(run.mean_running))
    assert result.output_tokens_per_s == pytest.approx(tokens / run_s, rel=0.08)


def test_more_clients_give_more_tokens_and_slower_ones():
    results = [played(configuration(concurrency=c)) for c in (1, 4, 16, 64)]
    assert (np.diff([r.output_tokens_per_s for r in results]) > 0).all()
    assert (np.diff([r.tpot_s for r in results]) > 0).all()
    assert (np.diff([r.ttft_s for r in results]) > 0).all()


def test_lengths_are_uniform_from_the_ratio_to_the_whole_and_repeat_with_the_seed():
    lengths = uniform_lengths(1000, 0.8, 20_000, seed=0, name="benchmark.prompt")
    assert (lengths.min(), lengths.max()) == (800, 1000)
    assert abs(lengths.mean() - 900) < 4 * 58 / np.sqrt(20_000)
    np.testing.assert_array_equal(lengths, uniform_lengths(1000, 0.8, 20_000, seed=0, name="benchmark.prompt"))
    assert (uniform_lengths(1000, 0.8, 9, seed=1, name="benchmark.prompt") != lengths[:9]).any()
    assert set(uniform_lengths(7, 1.0, 50, seed=0, name="x")) == {7}
    assert uniform_lengths(1, 0.01, 50, seed=0, name="x").min() == 1


def test_multi_token_prediction_takes_fewer_steps():
    table, limits = table_and_limits(CHAT)
    one, two = (
        closed_loop(table, limits, engine_of(CHAT), isl=1024, osl=129, concurrency=4, tokens_per_step=t)
        for t in (1.0, 2.0)
    )
    assert two.tpot_s == pytest.approx(0.5 * one.tpot_s, rel=0.05)
    assert two.output_tokens_per_s > 1.6 * one.output_tokens_per_s


def table_and_limits(c):
    steps, limits = Player().prepare(c)
    return steps.table(), limits


def test_one_token_has_a_ttft_and_no_tpot():
    result = played(configuration(osl=1))
    assert np.isfinite(result.ttft_s)
    assert np.isnan(result.tpot_s)
    assert result.output_tokens_per_s == pytest.approx(8 / result.ttft_s)


# Predictions ---------------------------------------------------------------------------------------------------


def test_a_prediction_is_its_benchmark_corrected_by_measured_runs_with_intervals():
    prediction, result, errors = predict_closed_loop(CHAT), played(CHAT), errors_of(CHAT)
    assert prediction.ttft_s.value == pytest.approx(result.ttft_s * exp(errors["ttft"].mean))
    assert prediction.tpot_s.value == pytest.approx(result.tpot_s * exp(errors["tpot"].mean))
    for metric, error in errors.items():
        estimate = getattr(prediction, f"{metric}_s")
        wide = [error.deviation * q for q in error.quantiles]
        assert estimate.low == pytest.approx(estimate.value * exp(wide[0]))
        assert estimate.high == pytest.approx(estimate.value * exp(wide[1]))
    for estimate in (prediction.ttft_s, prediction.tpot_s, prediction.tok_s_per_gpu):
        assert 0 < estimate.low < estimate.value < estimate.high
    assert prediction.source is Source.FITTED
    assert prediction.decode.bottleneck == "HBM bandwidth"


def test_throughput_follows_the_corrected_latencies_of_a_request():
    """Clients ask again when they are answered: a request that takes longer leaves fewer of them in an hour."""
    prediction, result = predict_closed_loop(CHAT), played(CHAT)
    simulated_s = result.ttft_s + 127 * result.tpot_s
    corrected_s = prediction.ttft_s.value + 127 * prediction.tpot_s.value
    expected = result.output_tokens_per_s / 4 * simulated_s / corrected_s
    assert prediction.tok_s_per_gpu.value == pytest.approx(expected)


def test_where_nothing_measured_is_near_nothing_is_corrected_and_more_is_doubted():
    """A model that nobody measured keeps the simulated numbers nearly, and wider intervals than one that has runs."""
    stranger = replace(CHAT, model=replace(CHAT.model, name="somebody/else"))
    near, far = (errors_of(c)["tpot"] for c in (CHAT, stranger))
    assert near.deviation < far.deviation
    prior = sum(d**2 for d in load_neighbours().processes["tpot"].deviations.values()) ** 0.5
    assert abs(far.mean) < 0.5 * prior
    known, unknown = predict_closed_loop(CHAT), predict_closed_loop(stranger)
    assert unknown.tpot_s.high / unknown.tpot_s.value > known.tpot_s.high / known.tpot_s.value


def test_configurations_are_corrected_together_as_one_by_one():
    configurations = [CHAT, configuration(concurrency=32), configuration(accelerator="mi300x")]
    player = Player()
    together = corrected([player.closed_loop(c) for c in configurations])
    for c, found in zip(configurations, together, strict=True):
        alone = predict_closed_loop(c)
        for name in ("ttft_s", "tpot_s", "tok_s_per_gpu"):
            expected = getattr(alone, name)
            found_estimate = getattr(found, name)
            assert found_estimate.value == pytest.approx(expected.value, rel=1e-9), name
            assert found_estimate.low == pytest.approx(expected.low, rel=1e-9), name
        assert (found.source, found.note) == (alone.source, alone.note)
    assert corrected([]) == []


def test_a_player_gives_the_same_for_a_configuration_whatever_it_played_before():
    """Step models share what depends on the same parts of a deployment and its lengths, and nothing else."""
    player = Player()
    others = [
        {"isl": 4096, "osl": 64}, {"concurrency": 2}, {"concurrency": 512}, {"ratio_low": 0.5}, {"precision": "bf16"},
        {"tp": 8}, {"tp": 2, "pp": 2}, {"accelerator": "mi300x"}, {"accelerator": "b200_sxm"}, {"engine": "sglang"},
        {"max_num_batched_tokens": 2048}, {"max_num_seqs": 16}, {"kv_bytes_per_element": 2.0},
    ]  # fmt: skip
    for c in (*(configuration(**other) for other in others), CHAT):
        one, again = played(c), player.closed_loop(c)
        assert (again.ttft_s, again.tpot_s, again.output_tokens_per_s) == (
            one.ttft_s, one.tpot_s, one.output_tokens_per_s,
        )  # fmt: skip
        assert again.configuration == c
        assert again.steps.source is one.steps.source
        assert list(again.steps.kernels.notes) == list(one.steps.kernels.notes)


def test_the_same_seed_gives_the_same_prediction_and_another_nearly():
    c = replace(CHAT, ratio_low=0.5)
    one, again, two = (predict_closed_loop(c, seed=seed) for seed in (1, 1, 2))
    for name in ("ttft_s", "tpot_s", "tok_s_per_gpu", "source", "note"):
        assert getattr(one, name) == getattr(again, name), name
    assert one.tpot_s.value != two.tpot_s.value
    assert one.tpot_s.value == pytest.approx(two.tpot_s.value, rel=0.05)


def test_carried_over_constants_widen_the_interval_and_are_named():
    own, theirs = (predict_closed_loop(configuration(accelerator=x)) for x in ("h100_sxm", "mi300x"))
    assert theirs.source is Source.DERIVED
    assert "kernels of h100_sxm" in theirs.note
    assert "MI300X" in theirs.note
    assert theirs.tpot_s.high / theirs.tpot_s.value > own.tpot_s.high / own.tpot_s.value


FP8_KV = "KV cache in FP8, as in published runs of quantised checkpoints"


def test_what_a_configuration_leaves_open_is_said():
    own = configuration(engine="trtllm")
    assert deployment_of(own).kv_bytes_per_element == 1
    assert FP8_KV in predict_closed_loop(own).note
    assert FP8_KV not in predict_closed_loop(replace(own, kv_bytes_per_element=2.0)).note
    assert FP8_KV not in predict_closed_loop(configuration(engine="trtllm", precision="bf16")).note
    mixture = configuration("deepseek-ai/DeepSeek-V3", "h200_sxm", tp=1, dp=8, ep=8, isl=256)
    assert "one attention-DP rank with its share of the load stands for all" in predict_closed_loop(mixture).note
    assert "one attention-DP rank" not in predict_closed_loop(own).note


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("accelerator", ["a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s", "mi300x"])
def test_the_cache_has_the_width_that_published_runs_had(accelerator, engine):
    if (accelerator, engine) == ("mi300x", "trtllm"):
        return
    for precision in ("fp8", "bf16"):
        c = configuration(accelerator=accelerator, engine=engine, precision=precision)
        narrow = precision == "fp8" and accelerator not in {"a100_sxm", "mi300x"}
        narrow = narrow and (engine, accelerator) != ("vllm", "h100_sxm")
        assert deployment_of(c).kv_bytes_per_element == (1 if narrow else 2)
        for asked in (1.0, 2.0):
            assert deployment_of(replace(c, kv_bytes_per_element=asked)).kv_bytes_per_element == asked


def test_a_version_that_was_measured_is_corrected_by_its_runs():
    """Left open it is like none of them: what all versions share remains."""
    versions = sorted(set(load_neighbours().runs.names["engine_version"]))
    named = [errors_of(replace(CHAT, engine_version=version)) for version in versions]
    neither = errors_of(CHAT)
    assert min(found["tpot"].deviation for found in named) <= neither["tpot"].deviation
    assert len({round(found["tpot"].mean, 9) for found in named}) > 1


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_each_engine_is_replayed_by_its_own_scheduler(engine):
    c = configuration(engine=engine)
    _, limits = table_and_limits(c)
    assert limits.policy is POLICIES[engine]
    assert limits.ignore_eos == (engine == "sglang")  # benchmarks force output lengths


def test_an_engine_that_prefills_first_answers_equal_requests_in_waves():
    """SGLang with vLLM's overheads. All prompts are computed before the first decode, so that all answers end
    together and the next prompts queue up together: TTFT pays for what TPOT saves."""
    c = configuration(concurrency=64, isl=2048, osl=256)
    table, limits = table_and_limits(c)
    first = replace(limits, policy=Policy.SGLANG, ignore_eos=True)
    mixed, apart = (closed_loop(table, x, engine_of(c), isl=c.isl, osl=c.osl, concurrency=64) for x in (limits, first))
    assert apart.ttft_s > 2 * mixed.ttft_s
    assert apart.tpot_s < 0.9 * mixed.tpot_s
    assert apart.output_tokens_per_s == pytest.approx(mixed.output_tokens_per_s, rel=0.1)


def test_open_loop_meets_the_closed_one_where_nobody_waits():
    """A request a minute: TTFT and TPOT of one client alone. What measured runs say of TTFT is about clients that all
    start together, so that an open loop's stays the simulated one."""
    alone = predict_closed_loop(configuration(concurrency=1))
    sparse = predict_open_loop(CHAT, 1 / 60)
    assert sparse.played.ttft_s == pytest.approx(alone.played.ttft_s, rel=0.02)
    assert sparse.ttft_s.value == pytest.approx(sparse.played.ttft_s)
    assert sparse.ttft_s.low < sparse.ttft_s.value < sparse.ttft_s.high
    assert sparse.tpot_s.value == pytest.approx(alone.tpot_s.value, rel=0.02)
    assert sparse.tok_s_per_gpu.value == pytest.approx(128 / 60 / 4, rel=0.1)


def test_a_busier_open_loop_is_slower():
    slow = [predict_open_loop(CHAT, rate) for rate in (0.5, 4, 12)]
    for metric in ("ttft_s", "tpot_s"):
        assert (np.diff([getattr(p, metric).value for p in slow]) > 0).all()


def test_seats_default_to_the_clients_of_a_rank_and_never_exceed_the_budget():
    assert deployment_of(configuration(concurrency=8)).knobs.max_num_seqs == LEAST_SEATS
    assert deployment_of(configuration(concurrency=2000)).knobs.max_num_seqs == 2000
    assert deployment_of(configuration(concurrency=2000, dp=4)).knobs.max_num_seqs == 500
    knobs = deployment_of(configuration(concurrency=512, max_num_batched_tokens=100)).knobs
    assert (knobs.max_num_batched_tokens, knobs.max_num_seqs) == (100, 100)
    assert deployment_of(configuration(engine="sglang", concurrency=2000, dp=4)).knobs.max_num_seqs == 2000
    assert deployment_of(configuration(max_num_seqs=3)).knobs.max_num_seqs == 3
    assert deployment_of(CHAT).knobs.max_model_len == 1024 + 128


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tp": 1, "precision": "bf16"}, "does not fit"),
        ({"speculative_mtp": True}, "multi-token prediction"),
        ({"accelerator": "mi300x", "engine": "trtllm"}, "does not run on"),
        ({"accelerator": "mi355x", "precision": "nvfp4"}, "nvfp4 does not run on mi355x"),
    ],
)
def test_what_cannot_run_says_why(change, says):
    with pytest.raises(UnsupportedError, match=says):
        predict_closed_loop(configuration(**change))


def test_pipeline_stages_are_predicted():
    """Two stages of two GPUs instead of four: a token waits for both, and prompts go through one after the other."""
    tensor, stages = (predict_closed_loop(configuration(**split)) for split in ({"tp": 4}, {"tp": 2, "pp": 2}))
    assert stages.played.steps.deployment.gpus == 4
    assert stages.played.tpot_s > tensor.played.tpot_s
    assert stages.played.tpot_s < 2.5 * tensor.played.tpot_s
    assert stages.played.ttft_s > 0

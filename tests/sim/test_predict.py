"""Closed-loop benchmarks and the predictions made of them."""

from dataclasses import replace

import numpy as np
import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.efficiency import efficiency_for
from trilemma.catalogue.figure import Source
from trilemma.errors import UnsupportedError
from trilemma.latency.step import StepModel
from trilemma.sim.benchmark import PROMPTS_PER_CLIENT, closed_loop, uniform_lengths
from trilemma.sim.engine import Policy
from trilemma.sim.limits import POLICIES
from trilemma.sim.predict import (
    LEAST_SEATS,
    Configuration,
    deployment_of,
    play,
    predict_closed_loop,
    predict_open_loop,
    prepare,
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
    return play(c, efficiency_for(c.accelerator, c.engine.name))[0]


# The benchmark -------------------------------------------------------------------------------------------------


def test_every_client_sends_ten_requests():
    timings = played(CHAT).run.timings
    assert len(timings) == 8 * PROMPTS_PER_CLIENT
    assert (timings.arrival_s == 0).sum() == 8
    assert timings.finished.all()


def test_one_client_is_the_sum_of_its_steps():
    """No queue: TTFT is one prefill step and the time before the scheduler, TPOT the mean decode step."""
    c = configuration(concurrency=1)
    efficiency = efficiency_for(c.accelerator, "vllm")
    table = StepModel(deployment_of(c), efficiency).table()
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
    result = played(c)
    engine = efficiency_for(c.accelerator, "vllm").engine
    run_s = result.run.span_s + PROMPTS_PER_CLIENT * engine.request_s
    tokens = result.run.timings.output_tokens.sum()
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
    table, limits = model_and_limits(CHAT)
    engine = efficiency_for(CHAT.accelerator, "vllm").engine
    one, two = (
        closed_loop(table, limits, engine, isl=1024, osl=129, concurrency=4, tokens_per_step=t) for t in (1.0, 2.0)
    )
    assert two.tpot_s == pytest.approx(0.5 * one.tpot_s, rel=0.05)
    assert two.output_tokens_per_s > 1.6 * one.output_tokens_per_s


def model_and_limits(c):
    steps, limits = prepare(c, deployment_of(c), efficiency_for(c.accelerator, c.engine.name))
    return steps.table(), limits


def test_one_token_has_a_ttft_and_no_tpot():
    result = played(configuration(osl=1))
    assert np.isfinite(result.ttft_s)
    assert np.isnan(result.tpot_s)
    assert result.output_tokens_per_s == pytest.approx(8 / result.ttft_s)


# Predictions ---------------------------------------------------------------------------------------------------


def test_a_prediction_is_its_benchmark_with_intervals():
    prediction, result = predict_closed_loop(CHAT), played(CHAT)
    assert prediction.ttft_s.value == result.ttft_s
    assert prediction.tpot_s.value == result.tpot_s
    assert prediction.tok_s_per_gpu.value == pytest.approx(result.output_tokens_per_s / 4)
    for estimate in (prediction.ttft_s, prediction.tpot_s, prediction.tok_s_per_gpu):
        assert 0 < estimate.low < estimate.value < estimate.high
    assert (prediction.source, prediction.note) == (Source.FITTED, "")
    assert prediction.decode.bottleneck == "HBM bandwidth"


def test_the_same_seed_gives_the_same_prediction_and_another_nearly():
    c = replace(CHAT, ratio_low=0.5)
    assert predict_closed_loop(c, seed=1) == predict_closed_loop(c, seed=1)
    one, two = (predict_closed_loop(c, seed=seed).tpot_s.value for seed in (1, 2))
    assert one != two
    assert one == pytest.approx(two, rel=0.05)


def test_carried_over_constants_widen_the_interval_and_are_named():
    own, theirs = (predict_closed_loop(configuration(accelerator=x)) for x in ("h100_sxm", "mi300x"))
    assert theirs.source is Source.DERIVED
    assert "none of mi300x are measured" in theirs.note
    assert theirs.tpot_s.high / theirs.tpot_s.value > own.tpot_s.high / own.tpot_s.value


def test_what_a_configuration_leaves_open_is_said():
    own = configuration(engine="trtllm")
    assert deployment_of(own).kv_bytes_per_element == 1
    assert predict_closed_loop(own).note == "KV cache in FP8, as in published runs of quantised checkpoints"
    assert predict_closed_loop(replace(own, kv_bytes_per_element=2.0)).note == ""
    assert predict_closed_loop(configuration(engine="trtllm", precision="bf16")).note == ""
    assert predict_closed_loop(configuration(engine="sglang")).note == ""
    mixture = configuration("deepseek-ai/DeepSeek-V3", "h200_sxm", tp=1, dp=8, ep=8, isl=256)
    assert predict_closed_loop(mixture).note == "one attention-DP rank with its share of the load stands for all"


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_each_engine_is_replayed_by_its_own_scheduler(engine):
    c = configuration(engine=engine)
    _, limits = model_and_limits(c)
    assert limits.policy is POLICIES[engine]
    assert limits.ignore_eos == (engine == "sglang")  # benchmarks force output lengths


def test_an_engine_that_prefills_first_answers_equal_requests_in_waves():
    """SGLang with vLLM's overheads. All prompts are computed before the first decode, so that all answers end
    together and the next prompts queue up together: TTFT pays for what TPOT saves."""
    c = configuration(concurrency=64, isl=2048, osl=256)
    efficiency = efficiency_for(c.accelerator, "vllm")
    steps, limits = prepare(c, deployment_of(c), efficiency)
    first = replace(limits, policy=Policy.SGLANG, ignore_eos=True)
    mixed, apart = (
        closed_loop(steps.table(), x, efficiency.engine, isl=c.isl, osl=c.osl, concurrency=64) for x in (limits, first)
    )
    assert apart.ttft_s > 2 * mixed.ttft_s
    assert apart.tpot_s < 0.9 * mixed.tpot_s
    assert apart.output_tokens_per_s == pytest.approx(mixed.output_tokens_per_s, rel=0.1)


def test_open_loop_meets_the_closed_one_where_nobody_waits():
    """A request a minute: TTFT and TPOT of one client alone."""
    alone = predict_closed_loop(configuration(concurrency=1))
    sparse = predict_open_loop(CHAT, 1 / 60)
    assert sparse.ttft_s.value == pytest.approx(alone.ttft_s.value, rel=0.02)
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
        ({"pp": 2}, "pipeline"),
        ({"speculative_mtp": True}, "multi-token prediction"),
        ({"accelerator": "mi300x", "engine": "trtllm"}, "does not run on"),
        ({"accelerator": "mi355x", "precision": "nvfp4"}, "nvfp4 does not run on mi355x"),
    ],
)
def test_what_cannot_run_says_why(change, says):
    with pytest.raises(UnsupportedError, match=says):
        predict_closed_loop(configuration(**change))

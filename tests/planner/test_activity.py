"""What a plan's runs tell the bill: watts of its steps, how busy GPUs are in quiet hours, what a prefix cache saved."""

from dataclasses import replace

import numpy as np
import pytest

from tests.planner.questions import BATCH, CLOSED, DAY, answer, question
from trilemma.cost.use import busy_gpus
from trilemma.latency.energy import step_watts
from trilemma.latency.table import FRACTION_BITS
from trilemma.planner.bench import Bench, saturation_rps
from trilemma.planner.candidates import deployments, screen
from trilemma.planner.evaluate import evaluate, hold
from trilemma.planner.trial import cached_prefill_share
from trilemma.units import PS_PER_S

ONE = {"space.accelerators": ["h100_sxm"], "space.precisions": ["bf16"], "space.tensor_parallel": [1]}
RISING = {"workload.profile": {"multipliers": list(range(10, 130, 10)) * 2, "trace_is": "peak"}}


def bench(*changes):
    asked = question(ONE, *changes)
    return Bench(screen(next(deployments(asked)), asked), asked)


@pytest.fixture(scope="module")
def day():
    ready = bench(RISING)
    return ready, evaluate(ready.question, (ready.candidate, saturation_rps(ready)))[0]


def test_watts_are_those_of_the_runs_own_steps(day):
    trial = day[1]
    activity, accelerator = trial.fleet.activity, trial.deployment.accelerator
    assert activity.decode_w == pytest.approx(step_watts(trial.decode_terms, accelerator), rel=0.1)  # at the knee
    assert activity.prefill_w == pytest.approx(step_watts(trial.prefill_terms, accelerator), rel=0.02)
    assert accelerator.idle_w < activity.decode_w < activity.prefill_w <= accelerator.tdp_w


def test_quiet_hours_are_as_busy_as_when_they_are_played(day):
    ready, trial = day
    fleet, requests = trial.fleet, ready.question.workload.requests
    gpus, replicas = trial.deployment.parallelism.gpus, trial.deployment.replicas
    for share in (0.1, 0.4, 0.8):
        load = np.array([share * fleet.activity.rate_rps])
        held = np.array([float(replicas * gpus)])
        prefill, decode = busy_gpus(fleet.activity, load, held, gpus)
        run = ready.play(requests.at_rate(load[0] / requests.rate_per_s), replicas)
        played = (run.prefill_s + run.decode_s) / len(requests) * load[0] * gpus
        assert (prefill + decode)[0] == pytest.approx(played, rel=0.05)
    # At the peak's GPU-seconds per request the quietest hour would look far less busy than it is.
    plain = busy_gpus(replace(fleet.activity, busy_at=()), 0.1 * load / share, held, gpus)
    seen = busy_gpus(fleet.activity, 0.1 * load / share, held, gpus)
    assert plain[0] + plain[1] < 0.8 * (seen[0] + seen[1])


def test_a_fixed_fleet_knows_its_quiet_hours_too():
    ready = bench(DAY)
    trial = hold(ready, saturation_rps(ready), 2)
    assert len(trial.fleet.activity.busy_at) == 1
    assert trial.fleet.activity.busy_at[0].rps < 0.3 * trial.fleet.activity.rate_rps / 2


@pytest.mark.parametrize("changes", [BATCH, CLOSED], ids=["batch", "closed loop"])
def test_where_the_load_is_one_no_other_is_played(changes):
    assert answer(changes).chosen.trial.fleet.activity.busy_at == ()


def test_attending_to_cached_tokens_takes_the_pairs_of_new_and_found(day):
    ready = day[0]
    run = ready.play(ready.question.workload.requests, 2)
    assert cached_prefill_share(ready, run) == 0.0
    prompts = run.timings.prompt_tokens
    found = replace(run, hit_tokens=(prompts // 2).astype(np.int32))
    pairs = float((2.0 * (prompts // 2) * (prompts - prompts // 2)).sum())
    expected = pairs * ready.table.pair_fp / 2**FRACTION_BITS / PS_PER_S / run.prefill_s
    assert 0 < cached_prefill_share(ready, found) == pytest.approx(expected)
    assert cached_prefill_share(ready, replace(found, prefill_s=1e-9)) == 1.0

"""Predictions beside measured servers: single runs copied here, so that a change that moves the level is seen.

The rows are mean TPOT of closed-loop runs from InferenceX benchmark snapshots and vendor runs, as collected in
NVIDIA AIConfigurator's repository (Apache-2.0). They span engines, accelerators and architectures at low concurrency,
where the scheduler matters least; they are a tripwire, not the measure of accuracy.
"""

from statistics import median

import pytest

from tests.latency.deployments import CATALOGUE, steps
from trilemma.sim.predict import Configuration, predict_closed_loop

# Model, accelerator, engine with version and date where known; precision, TP, expert groups, ISL, OSL, shortest /
# longest length, clients; mean TPOT in ms.
RUNS = """\
MiniMaxAI/MiniMax-M2.5         b200_sxm vllm   0.19.0_2026-04-03     fp8   2 1 8192 1024 0.8 4  10.25623
MiniMaxAI/MiniMax-M2.5         b200_sxm vllm   0.19.0_2026-04-08     nvfp4 2 1 1024 1024 0.8 8  8.07718
MiniMaxAI/MiniMax-M2.5         h100_sxm vllm   0.18.0_2026-03-27     fp8   4 4 1024 1024 0.8 8  12.4708
Qwen/Qwen3-235B-A22B           h100_sxm trtllm 1.0.0rc3              fp8   4 4 512  128  1.0 8  15.73965
Qwen/Qwen3-235B-A22B           h200_sxm sglang 0.5.6.post2           fp8   4 1 2000 1000 1.0 9  16.78
Qwen/Qwen3-32B                 h100_sxm trtllm 1.0.0rc3              fp8   2 1 2048 128  1.0 8  14.02909
Qwen/Qwen3-32B                 h100_sxm vllm   0.12.0                bf16  4 1 4096 128  1.0 16 25.41472
Qwen/Qwen3.5-397B-A17B         b200_sxm sglang 0.5.9_2026-03-24      fp8   8 1 1024 1024 0.8 4  8.33499
deepseek-ai/DeepSeek-R1        b200_sxm sglang 0.5.9_2026-03-25      nvfp4 4 4 1024 1024 0.8 4  9.00136
deepseek-ai/DeepSeek-R1        h200_sxm sglang 0.5.9_2026-03-25      fp8   8 1 1024 1024 0.8 16 16.62984
deepseek-ai/DeepSeek-R1        h200_sxm trtllm 1.1.0rc2.post2_2025-12-15 fp8 8 8 8192 1024 0.8 4 14.95385
meta-llama/Meta-Llama-3.1-70B  b200_sxm trtllm unknown_2025-10-29    nvfp4 2 1 1024 1024 0.8 4  8.9412
meta-llama/Meta-Llama-3.1-70B  h100_sxm vllm   unknown_2025-10-29    fp8   2 1 1024 1024 0.8 4  17.40722
meta-llama/Meta-Llama-3.1-70B  h100_sxm vllm   unknown_2025-10-29    fp8   4 1 8192 1024 0.8 8  15.76618
meta-llama/Meta-Llama-3.1-70B  h200_sxm vllm   unknown_2025-10-29    fp8   1 1 1024 1024 0.8 8  22.5567
openai/gpt-oss-120b            h200_sxm trtllm gpt-oss-dev_2025-12-15 mxfp4 2 2 1024 1024 0.8 4 5.90135
openai/gpt-oss-120b            b200_sxm vllm   0.15.1_2026-02-25     mxfp4 4 1 1024 1024 0.8 4  2.99406
""".splitlines()


def predicted_over_measured(run: str) -> float:
    model, accelerator, engine, _version, precision, *numbers, tpot_ms = run.split()
    tp, ep, isl, osl, ratio_low, clients = (float(x) for x in numbers)
    architecture = CATALOGUE.model(model)
    prediction = predict_closed_loop(
        Configuration(
            model=architecture,
            accelerator=CATALOGUE.accelerator(accelerator),
            engine=CATALOGUE.engine(engine),
            precision=CATALOGUE.precision(precision, model=architecture),
            isl=int(isl),
            osl=int(osl),
            concurrency=int(clients),
            tp=int(tp),
            ep=int(ep),
            ratio_low=ratio_low,
        )
    )
    return 1e3 * prediction.tpot_s.value / float(tpot_ms)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(run.split()[:5]))
def test_predicted_tpot_is_near_the_measured_one(run):
    assert 1 / 1.6 < predicted_over_measured(run) < 1.6


def test_predictions_lean_to_neither_side():
    assert 0.88 < median(map(predicted_over_measured, RUNS)) < 1.14


# What a decode step of one sequence takes: at least one reading of the weights, at most a few times that.
# (model, accelerator, precision, TP): least and most milliseconds; parameters x bytes / (TP x data-sheet bandwidth)
ONE_SEQUENCE = {
    ("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", "fp8", 4): (5.3, 20),  # 70.6 GB / (4 x 3.35 TB/s) = 5.3 ms
    ("meta-llama/Meta-Llama-3.1-70B", "h200_sxm", "fp8", 1): (14.7, 30),  # 70.6 GB / 4.8 TB/s
    ("meta-llama/Meta-Llama-3.1-70B", "mi300x", "bf16", 1): (26.6, 80),  # 141 GB / 5.3 TB/s
    ("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", "bf16", 1): (4.5, 10),  # 15 GB / 3.35 TB/s
    ("meta-llama/Meta-Llama-3.1-8B", "l4", "bf16", 1): (50, 90),  # 15 GB / 300 GB/s
    ("meta-llama/Meta-Llama-3.1-8B", "a100_sxm", "bf16", 1): (7.3, 15),  # 15 GB / 2.04 TB/s
    ("meta-llama/Meta-Llama-3.1-405B", "b200_sxm", "fp8", 8): (6.3, 20),  # 405 GB / (8 x 8 TB/s)
}


@pytest.mark.parametrize(("row", "between_ms"), ONE_SEQUENCE.items(), ids=lambda x: "-".join(map(str, x)))
def test_one_sequence_decodes_at_the_speed_of_its_weights(row, between_ms):
    model, accelerator, precision, tp = row
    decode = steps(model, accelerator, precision=precision, tp=tp).terms(decodes=1, context_sum=1024, sampling=1)
    assert between_ms[0] < 1e3 * decode.total_s < between_ms[1]

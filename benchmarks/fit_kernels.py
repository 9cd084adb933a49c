"""Shares of the data sheet that measured kernels reach, per accelerator and number format.

    python benchmarks/fit_kernels.py KERNEL_FOLDER > kernels.toml

Reads the kernel tables (gemm, moe, generation_attention, context_attention, custom_allreduce: *.parquet with one row
per shape, accelerator and engine) and fits, by robust least squares on the logarithm of time,

    t = ((bytes / (bandwidth x memory))^blend + (flops / (peak x compute))^blend)^(1/blend) + fixed_s

pooled over engines, so that a row says what an accelerator does and the engine's own habits stay with the engine.
`spread` holds the 10% and 90% quantiles of measured / fitted, `points` the rows used. Needs the `rebuild` extra.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import least_squares

from trilemma.catalogue.catalogue import load_catalogue

# name in the tables -> name in the catalogue
SYSTEMS = {
    "a100_sxm": "a100_sxm", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm", "b200_sxm": "b200_sxm",
    "b300_sxm": "b300_sxm", "gb200": "gb200", "gb300": "gb300", "l40s": "l40s",
    "rtx_pro_6000_server": "rtx_pro_6000",
}  # fmt: skip
GEMM_FORMATS = {"bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0), "fp8_block": ("fp8", 1.0), "nvfp4": ("fp4", 0.5625)}
EXPERT_FORMATS = GEMM_FORMATS | {"w4a16_mxfp4": ("w4a16", 0.53125), "w4a8_mxfp4_mxfp8": ("w4a8", 0.53125)}
MULTIPLIES_IN = {"w4a16": "bf16", "w4a8": "fp8"}
BLEND = {"bf16": 2.0, "fp8": 1.0, "fp4": 1.0, "w4a16": 1.0, "w4a8": 1.0}
# Launch-bound at small m in the collection, not in an engine under CUDA graphs (SGLang takes a third of the time).
# TensorRT-LLM's FP8 rows launch the quantisation of activations apart (13 to 16 us a call where others take 7), and so
# do SGLang's block-FP8 ones on Blackwell; engines fuse or graph it.
OUTLIERS = {("vllm", "fp8_block"), ("vllm", "fp8"), ("trtllm", "fp8")}
BLACKWELL_OUTLIERS = {("sglang", "fp8_block")}
BLACKWELL = ("b200_sxm", "b300_sxm", "gb200", "gb300")
LEAST_DECODE_BYTES = 4e6  # smaller reads are all launch and latency
SAMPLE = 12_000
RNG = np.random.default_rng(0)


def columns(path: Path, *names: str) -> dict[str, np.ndarray]:
    table = pq.read_table(path, columns=list(names))
    return {name: table[name].to_numpy() for name in names}


def pick(mask: np.ndarray) -> np.ndarray:
    index = np.flatnonzero(mask)
    return RNG.choice(index, min(index.size, SAMPLE), replace=False)


def fit(memory_s, compute_s, measured_s, blend, *, max_fixed_s=2e-4):
    def predicted(x):
        a, b = memory_s / np.exp(x[0]), compute_s / np.exp(x[1])
        return (a**blend + b**blend) ** (1 / blend) + np.exp(x[2])

    answer = least_squares(
        lambda x: np.log(predicted(x) / measured_s),
        np.log([0.8, 0.6, 5e-6]),
        loss="soft_l1",
        f_scale=0.1,
        bounds=(np.log([0.02, 0.02, 1e-7]), np.log([1.0, 1.0, max_fixed_s])),
    )
    ratio = measured_s / predicted(answer.x)
    memory, compute, fixed_s = np.exp(answer.x)
    low, high = np.quantile(ratio, [0.1, 0.9])
    return memory, compute, fixed_s, low, high


def show(key, blend, fitted, points, *, keep=("memory", "compute")):
    memory, compute, fixed_s, low, high = fitted
    shares = {"memory": memory, "compute": compute}
    text = ", ".join(f"{name} = {shares[name]:.3f}" for name in keep)
    tail = f"spread = [{low:.2f}, {high:.2f}], points = {points}"
    print(f"{key} = {{ {text}, blend = {blend}, fixed_s = {fixed_s:.2e}, {tail} }}")


def gemms(folder, accelerators):
    table = columns(folder / "gemm.parquet", "system", "engine", "gemm_dtype", "m", "n", "k", "latency")
    shaped = (table["n"] >= 512) & (table["k"] >= 512) & (table["n"] <= 16384) & (table["k"] <= 16384)
    for engine, dtype in OUTLIERS:
        shaped &= ~((table["engine"] == engine) & (table["gemm_dtype"] == dtype))
    for engine, dtype in BLACKWELL_OUTLIERS:
        there = np.isin(table["system"], BLACKWELL)
        shaped &= ~(there & (table["engine"] == engine) & (table["gemm_dtype"] == dtype))
    for system, name in SYSTEMS.items():
        for target in ("bf16", "fp8", "fp4"):
            kinds = [k for k, (t, _) in GEMM_FORMATS.items() if t == target]
            index = pick(shaped & (table["system"] == system) & np.isin(table["gemm_dtype"], kinds))
            peak = accelerators[name].flops.get(target)
            if index.size < 500 or peak is None:
                continue
            m, n, k = (table[c][index].astype(float) for c in "mnk")
            width = np.array([GEMM_FORMATS[kind][1] for kind in table["gemm_dtype"][index]])
            memory_s = (n * k * width + m * k * width + m * n * 2) / accelerators[name].hbm_bytes_per_s
            yield (
                name,
                f"gemm.{target}",
                BLEND[target],
                fit(memory_s, 2 * m * n * k / peak, table["latency"][index] / 1e3, BLEND[target]),
                index.size,
            )


def experts(folder, accelerators):
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    table = columns(folder / "moe.parquet", "system", "engine", "moe_dtype", "distribution", "latency", *names)
    shaped = (table["num_experts"] >= 32) & (table["inter_size"] >= 512) & (table["inter_size"] <= 4096)
    shaped &= ~((table["engine"] == "vllm") & (table["moe_dtype"] == "fp8"))  # slower than BF16 in the collection
    for system, name in SYSTEMS.items():
        for target in ("bf16", "fp8", "fp4", "w4a16", "w4a8"):
            kinds = [k for k, (t, _) in EXPERT_FORMATS.items() if t == target]
            index = pick(shaped & (table["system"] == system) & np.isin(table["moe_dtype"], kinds))
            peak = accelerators[name].flops.get(MULTIPLIES_IN.get(target, target))
            if index.size < 500 or peak is None:
                continue
            tokens, hidden, inter, k, e, tp, ep = (table[c][index].astype(float) for c in names)
            width = np.array([EXPERT_FORMATS[kind][1] for kind in table["moe_dtype"][index]])
            one_expert = 3 * hidden * inter / tp
            touched = e / ep * (1 - (1 - k / e) ** tokens)
            moved = touched * one_expert * width + tokens * k / ep * (2 * hidden + 3 * inter / tp) * 2
            memory_s = moved / accelerators[name].hbm_bytes_per_s
            compute_s = 2 * tokens * k / ep * one_expert / peak
            yield (
                name,
                f"expert.{target}",
                BLEND[target],
                fit(memory_s, compute_s, table["latency"][index] / 1e3, BLEND[target]),
                index.size,
            )


def attention(folder, accelerators):
    names = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size")
    decode = columns(folder / "generation_attention.parquet", "system", "kv_cache_dtype", "latency", *names)
    prefill = columns(folder / "context_attention.parquet", "system", "attn_dtype", "latency", *names)
    for system, name in SYSTEMS.items():
        gpu = accelerators[name]
        whole = decode["batch_size"] * (decode["isl"] + decode["step"]) * 2.0
        read = whole * decode["num_key_value_heads"] * decode["head_dim"] * 2.0
        chosen = (decode["system"] == system) & (decode["window_size"] == 0) & (read >= LEAST_DECODE_BYTES)
        index = pick(chosen)
        b, isl, step, heads, kv_heads, dim, _ = (decode[c][index].astype(float) for c in names)
        width = np.where(decode["kv_cache_dtype"][index] == "fp8", 1.0, 2.0)
        read = b * (isl + step) * 2 * kv_heads * dim * width
        flops = b * (isl + step) * 4 * heads * dim
        measured_s = decode["latency"][index] / 1e3
        yield (
            name,
            "decode_attention",
            2.0,
            fit(read / gpu.hbm_bytes_per_s, flops / gpu.flops["bf16"], measured_s, 2.0),
            index.size,
        )
        chosen = (prefill["system"] == system) & (prefill["window_size"] == 0) & (prefill["attn_dtype"] == "bfloat16")
        index = pick(chosen)
        b, isl, step, heads, kv_heads, dim, _ = (prefill[c][index].astype(float) for c in names)
        flops = 4 * b * heads * dim * isl * (step + (isl + 1) / 2)
        moved = b * 2 * dim * (2 * heads * isl + 2 * kv_heads * (isl + step))
        yield (
            name,
            "prefill_attention",
            2.0,
            fit(moved / gpu.hbm_bytes_per_s, flops / gpu.flops["bf16"], prefill["latency"][index] / 1e3, 2.0),
            index.size,
        )


def collectives(folder, accelerators):
    table = columns(
        folder / "custom_allreduce.parquet", "system", "kernel_source", "num_gpus", "message_size", "latency"
    )
    graph = ~np.char.endswith(table["kernel_source"].astype(str), "eager")
    for system, name in SYSTEMS.items():
        index = np.flatnonzero(graph & (table["system"] == system) & (table["num_gpus"] > 1))
        gpus = table["num_gpus"][index].astype(float)
        wire = table["message_size"][index] * 2.0 * 2 * (gpus - 1) / gpus  # elements of 2 bytes
        wire_s = wire / accelerators[name].link_bytes_per_s
        fitted = fit(wire_s, np.full_like(wire_s, 1e-12), table["latency"][index] / 1e3, 1.0)
        yield name, "collective", 1.0, fitted, index.size


def main() -> None:
    folder = Path(sys.argv[1])
    accelerators = load_catalogue().accelerators
    rows: dict[str, list[tuple]] = {name: [] for name in SYSTEMS.values()}
    for part in (gemms, experts, attention, collectives):
        for name, key, *rest in part(folder, accelerators):
            rows[name].append((key, *rest))
    for name, found in rows.items():
        print(f"\n[accelerators.{name}]")
        for key, blend, fitted, points in found:
            show(key, blend, fitted, points, keep=("memory",) if key == "collective" else ("memory", "compute"))


if __name__ == "__main__":
    main()

"""Surfaces of routed experts: ("moe" or "moe_balanced", accelerator, engine, format) over log2 of (pairs per expert,
inter, experts, hidden), all on one GPU.

The rows (moe.parquet: milliseconds per layer, by shape, parallelism and distribution of the load) count `num_tokens`
over all ranks of expert parallelism and time the fullest rank: evenly routed, Qwen3-235B's 16,384 tokens take
TensorRT-LLM on H200 7.6 ms on one GPU and 1.0 ms on one of eight. What a row did follows from how its routing was
drawn: "balanced" reaches as many experts as there are pairs, "power_law" draws the load of each expert. So the base
time of a row is that of the experts it reached and the pairs it computed, found by drawing again. What remains of the
distribution at equal work is the unequal load of the experts reached: nothing where weights are read for a pair or
less, 5 to 25% (a third at worst) for 4 to 128 pairs per expert. "moe" is fitted on the power laws (1.01 and 1.2, alike
at equal work), as real routing is uneven; "moe_balanced" on the balanced rows.

An engine has several kernels for a format. Which it picks follows from its source (AIConfigurator's collector, commit
095f58a, records the choice per row):

1. On Blackwell vLLM and SGLang run TensorRT-LLM's kernels through FlashInfer (medians by shape within 6% of each
   other, but for Llama 4 in block FP8).
   Left out: the shapes where the table has SGLang on Triton (Mixtral, Llama 4 in BF16, MiniMax M2.5, DeepSeek V4 in
   FP8: 1.2 to 2 times slower), vLLM on FlashInfer's CUTLASS or Marlin (shapes the first do not take).
2. FlashInfer's CUTLASS kernels were timed without the tuning that vLLM runs at start-up: on Hopper per-tensor FP8 takes
   4 to 6 times as long as TensorRT-LLM's tuned kernels of the same source, 3.5 times BF16 at one token, and
   SGLang's layers without gate likewise. The former are taken to be TensorRT-LLM's, the latter are left out.
3. On Hopper SGLang's rows of MXFP4 are GPT-OSS on Triton with weights widened to BF16; the engine picks the kernels of
   triton_kernels, which are vLLM's rows. On L40S and RTX PRO 6000 vLLM's (Marlin) are taken likewise. Kimi K3's Marlin
   rows with a substitute activation are left out.
4. TensorRT-LLM rows whose tuning failed or was replayed from another routing take 1.3 to 3 times as long as the same
   shape under another distribution: left out, by the median over all token counts.
5. Weights that stayed in a large L2 cache between calls are read from memory, as in surfaces/gemm.py.
6. Grouped routing (DeepSeek V3: four of eight groups may serve a token) redirects the drawn loads in vLLM and SGLang:
   half the experts are reached (52% of TensorRT-LLM's time at any balanced count): left out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from benchmarks.surfaces.gemm import (
    BLACKWELL,
    HOPPER,
    OTHERWISE_REACHABLE,
    REACHABLE,
    SYSTEMS,
    Rows,
    only,
    rising,
    with_values,
)
from benchmarks.surfaces.grid import ROBUST_SCALE, ROUNDS, roughness, weights
from scipy import sparse
from scipy.sparse.linalg import spsolve

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import Surface
from trilemma.latency.experts import ExpertWork, expert_cost, expert_features
from trilemma.latency.gemm import FORMS

Key = tuple[str, str, str]  # accelerator, engine, format
FORMATS = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "int4_wo": "w4a16",
    "w4a16_mxfp4": "mxfp4_w4a16", "w4a8_mxfp4_mxfp8": "mxfp4_w4a8",
}  # fmt: skip
SHAPE = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
ALPHA = {"balanced": 0.0, "power_law_1.01": 1.01, "power_law_1.2": 1.2}
WITHOUT_GATE = (1856, 2688, 5120)  # intermediate sizes of Nemotron's experts, two matrices each
DRAWS = 6
LEAST_ROWS = 200
KNOTS = (
    (-7, -4, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12),
    (6, 8, 9, 10, 11, 12, 14),
    (0, 3, 5, 6, 7, 9),
    (11.25, 12.75),
)
SMOOTH, RIDGE = 0.1, 0.01
MOST_ROWS = 25_000
SLOW_GROUP = 0.25  # logarithm of how much longer than its kin a group of TensorRT-LLM rows is left out at


def balanced_work(tokens: int, experts: int, top_k: int, ranks: int) -> tuple[float, float]:
    """(experts reached, pairs) of rank 0 under the collection's even routing: top_k experts a stride apart."""
    here = experts // ranks
    stride = -(-experts // top_k)
    t, j = np.arange(min(tokens, 4 * experts))[:, None], np.arange(top_k)[None, :]
    step = t if tokens >= stride else t * stride / tokens
    chosen = (step + j * stride).astype(np.int64) % experts
    counts = np.bincount(chosen[chosen < here], minlength=here)
    return float((counts > 0).sum()), float(counts.sum()) * tokens / len(t)


def power_law_work(tokens: int, experts: int, top_k: int, ranks: int, alpha: float) -> tuple[float, float]:
    """(experts reached, pairs) of the fullest rank when the experts' loads follow a power law, mean over DRAWS."""
    rng = np.random.default_rng([tokens, experts, top_k, ranks])
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > experts else (0.01, 2.0)
    power, target = 1 - alpha, tokens * top_k
    draw = ((high**power - low**power) * rng.random((DRAWS, experts)) + low**power) ** (1 / power)
    load = np.minimum(np.rint(draw / draw.sum(axis=1, keepdims=True) * target), tokens)
    counts = filled_up(load.reshape(DRAWS, ranks, -1), tokens, target)
    mine = counts[np.arange(DRAWS), counts.sum(axis=2).argmax(axis=1)]
    return float((mine > 0).sum(axis=1).mean()), float(mine.sum(axis=1).mean())


def filled_up(counts: np.ndarray, tokens: int, target: int) -> np.ndarray:
    """(draws, ranks, experts per rank) whole loads of at most `tokens` that sum to `target`: rank after rank, the
    emptiest expert takes or the fullest gives, one pair a turn (several while it is far off)."""
    draws, ranks, here = counts.shape
    d, r = np.arange(draws)[:, None], np.arange(ranks)[None, :]
    while (missing := target - counts.sum(axis=(1, 2))).any():
        takes = missing[:, None] > 0
        emptiest = np.where(counts < tokens, counts, np.inf).argmin(axis=2)
        pick = np.where(takes, emptiest, counts.argmax(axis=2))
        held = counts[d, r, pick]
        room = np.where(takes, tokens - held, held)
        at_once = np.maximum(1, np.abs(missing) // (4 * ranks * here))[:, None]
        turn = np.cumsum(room > 0, axis=1) - 1
        moved = np.clip(np.abs(missing)[:, None] - at_once * turn, 0, np.minimum(at_once, room))
        counts[d, r, pick] += np.where(takes, 1, -1) * moved
    return counts


def rank_work(rows: Rows) -> ExpertWork:
    """What the timed rank of each row did."""
    columns = [rows[c] for c in ("num_tokens", "num_experts", "topk", "moe_ep_size")]
    routing = np.stack([*columns, rows["alpha"] * 100], axis=1).round().astype(np.int64)
    unique, inverse = np.unique(routing, axis=0, return_inverse=True)
    work = [
        power_law_work(*key, percent / 100) if percent else balanced_work(*key) for *key, percent in unique.tolist()
    ]
    touched, pairs = np.array(work)[inverse.ravel()].T
    return ExpertWork(touched=touched, pairs=pairs)


def read(folder: Path, accelerators: dict[str, Accelerator]) -> dict[Key, Rows]:
    """(accelerator, engine, format) -> rows of the kernels that the engine picks."""
    found = {}
    for system, name in SYSTEMS.items():
        table = pq.read_table(folder / "moe.parquet", filters=[("system", "=", system)])
        words = {c: np.array(table[c].to_pylist()) for c in ("engine", "moe_dtype", "kernel_source", "distribution")}
        everything = {c: table[c].to_numpy().astype(float) for c in SHAPE}
        everything["seconds"] = table["latency"].to_numpy().astype(float) / 1e3
        everything["alpha"] = np.vectorize(ALPHA.__getitem__)(words["distribution"])
        work = rank_work(everything)
        everything |= {"touched": work.touched, "pairs": work.pairs, "source": words["kernel_source"]}
        for engine in np.unique(words["engine"]):
            for dtype, form in FORMATS.items():
                chosen = (words["engine"] == engine) & (words["moe_dtype"] == dtype)
                rows = only(everything, chosen)
                rows = only(rows, is_picked(rows, name, str(engine), form))
                if rows["seconds"].size:
                    found[name, str(engine), form] = with_base(rows, accelerators[name], form)
    return found


def is_picked(rows: Rows, accelerator: str, engine: str, form: str) -> np.ndarray:
    """The rows whose kernel the engine picks and whose routing was what its name says: points 1, 2, 3 and 6 above."""

    def kernel(part: str) -> np.ndarray:
        return np.char.find(rows["source"], part) >= 0

    grouped = (rows["hidden_size"] == 7168) & (rows["num_experts"] == 256)
    good = ~grouped if engine != "trtllm" else np.ones_like(grouped)
    if accelerator in BLACKWELL and engine != "trtllm":
        return good & (kernel("trtllm") | (form == "w4a16"))
    if accelerator in HOPPER and engine == "sglang" and form == "bf16":
        return good & ~kernel("flashinfer_cutlass")
    return good & ~kernel("situ_as_silu")


def pick_from_others(found: dict[Key, Rows], accelerator: str) -> None:
    """Rows of another engine that times the same kernels as they are served: points 2 and 3 above."""
    if accelerator in HOPPER:
        found[accelerator, "vllm", "fp8"] = found[accelerator, "trtllm", "fp8"]
    key = (accelerator, "sglang", "mxfp4_w4a16")
    if accelerator in HOPPER | {"l40s", "rtx_pro_6000"} and key in found:
        found[key] = found[accelerator, "vllm", "mxfp4_w4a16"]


def with_base(rows: Rows, accelerator: Accelerator, form: str) -> Rows:
    """The rows with `log_ratio` (log of measured / base), `features` 0 to 3 and `weight`."""
    inter, here = rows["inter_size"] / rows["moe_tp_size"], rows["num_experts"] / rows["moe_ep_size"]
    work = ExpertWork(touched=rows["touched"], pairs=rows["pairs"])
    base = {
        gated: expert_cost(
            work, hidden=rows["hidden_size"], inter=inter, accelerator=accelerator, form=form, gated=gated
        )
        for gated in (True, False)
    }
    without_gate = np.isin(rows["inter_size"], WITHOUT_GATE)
    base_s = np.where(without_gate, base[False].seconds, base[True].seconds)
    weights = np.where(without_gate, 2, 3) * rows["hidden_size"] * inter * rows["touched"]
    share = REACHABLE.get(accelerator.name, OTHERWISE_REACHABLE)
    least_s = weights * FORMS[form].weight_bytes / (accelerator.hbm_bytes_per_s * share)
    features = expert_features(work, hidden=rows["hidden_size"], inter=inter, experts_here=here)
    usual = (inter >= 96) & (inter <= 4096) & (rows["moe_ep_size"] <= 8)
    return rows | {
        "log_ratio": np.log(np.maximum(rows["seconds"], least_s) / base_s),
        "weight": np.where(usual, 1.0, np.where(rows["moe_ep_size"] > 8, 0.15, 0.3)),
        **{f"feature_{d}": f for d, f in enumerate(features)},
    }


def features_of(rows: Rows) -> list[np.ndarray]:
    return [rows[f"feature_{d}"] for d in range(len(KNOTS))]


def sample(rows: Rows, most: int) -> Rows:
    size = rows["seconds"].size
    if size <= most:
        return rows
    return only(rows, np.sort(np.random.default_rng(0).choice(size, most, replace=False)))


def joined(parts: Sequence[Rows]) -> Rows:
    return {c: np.concatenate([p[c] for p in parts]) for c in parts[0]}


def fit(rows: Rows, parents: Sequence[Surface] = ()) -> Surface:
    """`parents` summed plus what `rows` add to them: smooth, and nothing where there are no rows.

    A format measured on one model only then has the shape of its accelerator's other formats, and an engine that of its
    accelerator.
    """
    rows = sample(rows, MOST_ROWS)
    features, grid = features_of(rows), [np.asarray(k, float) for k in KNOTS]
    w, rough = weights(features, grid), roughness(grid)
    known = np.sum([p.values for p in parents], axis=0) if parents else np.zeros([k.size for k in grid])
    log_ratio = rows["log_ratio"] - w @ known.ravel()
    per_knot = max(1.0, rows["weight"].sum() / w.shape[1])
    penalty = per_knot * (SMOOTH * (rough.T @ rough) + RIDGE * sparse.identity(w.shape[1]))
    values = np.zeros(w.shape[1])
    for _ in range(ROUNDS):
        weight = rows["weight"] / np.sqrt(1 + ((log_ratio - w @ values) / ROBUST_SCALE) ** 2)
        scaled = w.multiply(weight[:, None]).tocsr()
        values = spsolve((w.T @ scaled + penalty).tocsc(), scaled.T @ log_ratio)
    total = known + values.reshape(known.shape)
    return Surface(knots=tuple(grid), values=total, spread=(1.0, 1.0), points=rows["seconds"].size)


def without_slow_groups(rows: Rows, surface: Surface) -> Rows:
    """Less the groups of one shape, parallelism and distribution that are slow against the surface and their kin."""
    residual = rows["log_ratio"] - surface.log_ratio(*features_of(rows))
    cell = np.stack([rows[c] for c in SHAPE[1:]], axis=1)
    _, cell_number = np.unique(cell, axis=0, return_inverse=True)
    group = cell_number.ravel() * 8 + np.searchsorted(sorted(ALPHA.values()), rows["alpha"])
    medians = {g: float(np.median(residual[group == g])) for g in np.unique(group)}
    fastest: dict[int, float] = {}
    for g, median in medians.items():
        fastest[g // 8] = min(median, fastest.get(g // 8, np.inf))
    slow = [g for g, median in medians.items() if median - min(fastest[g // 8], SLOW_GROUP) > SLOW_GROUP]
    return only(rows, ~np.isin(group, slow))


def rising_values(surface: Surface, accelerator: Accelerator, form: str) -> np.ndarray:
    """Values at the knots with which the time of a usual layer (gated, many small experts) rises along every axis."""
    load, inter, here, hidden = np.meshgrid(*(2**k for k in surface.knots), indexing="ij")
    work = ExpertWork(touched=here * -np.expm1(-load), pairs=here * load)
    cost = expert_cost(work, hidden=hidden, inter=inter, accelerator=accelerator, form=form)
    log_base = np.log(cost.seconds)
    return np.round(rising(surface.values + log_base) - log_base, 3)


def fitted(found: dict[Key, Rows]) -> Iterator[tuple[str, Key, Surface, Rows]]:
    """(operation, key, surface, the rows it describes) of each key and of "any" engine.

    Each surface adds to its parent: all there is, then an accelerator's format, then an engine, then the distribution.
    """
    everything = fit(joined([sample(rows, MOST_ROWS // 8) for rows in found.values()]))
    found = {
        key: without_slow_groups(rows, fit(rows, [everything])) if key[1] == "trtllm" else rows
        for key, rows in found.items()
    }
    for accelerator in {a for a, _, _ in found}:
        pick_from_others(found, accelerator)
    for accelerator, form in sorted({(a, f) for a, _, f in found}):
        kin = {e: rows for (a, e, f), rows in found.items() if (a, f) == (accelerator, form)}
        together = joined([sample(rows, MOST_ROWS // len(kin)) for rows in kin.values()])
        parent = fit(together, [everything])
        for engine, rows in {"any": joined(list(kin.values())), **kin}.items():
            of_engine = parent if engine == "any" else fit(rows, [parent])
            for operation, chosen in (("moe", rows["alpha"] > 0), ("moe_balanced", rows["alpha"] == 0)):
                if chosen.sum() >= LEAST_ROWS:
                    part = only(rows, chosen)
                    fair = only(together, (together["alpha"] > 0) == (operation == "moe")) if engine == "any" else part
                    yield operation, (accelerator, engine, form), fit(fair, [of_engine]), part


def surfaces(folder: Path) -> Iterator[tuple[tuple[str, str, str, str], Surface]]:
    """Every surface of routed experts that the table in `folder` holds."""
    accelerators = load_catalogue().accelerators
    for operation, key, surface, rows in fitted(read(folder, dict(accelerators))):
        values = rising_values(surface, accelerators[key[0]], key[2])
        features, log_ratio = features_of(rows), rows["log_ratio"]
        yield (operation, *key), with_values(surface, values, features, log_ratio, points=log_ratio.size)

"""Surfaces of dense GEMMs: ("gemm", accelerator, engine, format) over log2 of (m, n, k).

The rows (gemm.parquet: milliseconds per call, one row per shape, accelerator, engine and number format) are medians of
replayed CUDA graphs and hold the quantisation of activations where the format has one. Four things in them are habits
of the collection, not of the engines, seen in its source (AIConfigurator's collector at commit 095f58a) and in the
numbers, and are taken out:

1. vLLM's block-FP8 rows were run eagerly: no shape takes less than 60 us on H200 and 150 us on B200, where SGLang and
   TensorRT-LLM take 4 to 6. They are an upper bound; below it the same kernels as other engines time them: FlashInfer's
   (TensorRT-LLM's) under 32 tokens and DeepGEMM (SGLang's) above on Hopper, TensorRT-LLM's DeepGEMM on Blackwell.
2. SGLang's block-FP8 rows on Blackwell convert the weights' scales at every call, 7 to 16 us that the engine spends
   once at start-up: not above TensorRT-LLM's DeepGEMM.
3. TensorRT-LLM's NVFP4 rows are without its autotuner (1.7 times SGLang's time up to 256 tokens, flat in m): not above
   SGLang's.
4. Per-tensor FP8 of TensorRT-LLM and vLLM derives the activations' scale at every call, in extra kernels (8 us) and
   atomics (6 ns a token), where static scales and per-token kernels need one pass: what the smallest shapes take longer
   than the fastest engine's is subtracted. vLLM's m = 1 on Blackwell, 15 us above m = 2, falls under the same. The
   plugins of TensorRT-LLM 1.0 on A100 (INT8, weight-only) have a launch of 7 to 11 us, against 5 of BF16: likewise.

Weights that stayed in the L2 cache between calls (large caches and slow memory: L40S, RTX PRO 6000) are read from HBM
in a model, whose layers take turns: no row is faster than its weights at a share of the data sheet's bandwidth that
well-behaved rows reach.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from benchmarks.surfaces.grid import fit_surface

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import Surface
from trilemma.latency.gemm import FORMS, gemm_base_s, gemm_features

# name in the tables -> name in the catalogue
SYSTEMS = {
    "a100_sxm": "a100_sxm", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm", "b200_sxm": "b200_sxm",
    "b300_sxm": "b300_sxm", "gb200": "gb200", "gb300": "gb300", "l40s": "l40s",
    "rtx_pro_6000_server": "rtx_pro_6000",
}  # fmt: skip
FORMATS = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "sq": "int8", "int8_wo": "w8a16",
    "int4_wo": "w4a16",
}  # fmt: skip
HOPPER = {"h100_sxm", "h200_sxm"}
BLACKWELL = {"b200_sxm", "b300_sxm", "gb200", "gb300"}
# Share of the data sheet's bandwidth at which weights arrive at best, where a cache hides it.
REACHABLE = {"l40s": 0.80, "rtx_pro_6000": 0.88}
OTHERWISE_REACHABLE = 0.93
LEAST_WIDTH = 64  # narrower n or k is no layer of a model
M_KNOTS = (0, 2, 4, 5, 6, 7, 7.5, 8, 8.5, 9, 10, 11, 12, 13, 15)
WIDTH_KNOTS = np.log2([64, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 65536])
SMOOTH = {"a100_sxm": 0.1}
OTHERWISE_SMOOTH = 0.03
MOST_ROWS = 60_000

Rows = dict[str, np.ndarray]  # m, n, k and seconds: (rows,) float64


def read(folder: Path) -> dict[tuple[str, str, str], Rows]:
    """(accelerator, engine, format) -> rows, a shape at most once."""
    table = pq.read_table(folder / "gemm.parquet", columns=["system", "engine", "gemm_dtype", "m", "n", "k", "latency"])
    names = {c: table[c].to_numpy() for c in ("m", "n", "k", "latency")}
    codes = {c: table[c].combine_chunks() for c in ("system", "engine", "gemm_dtype")}
    index = {c: codes[c].indices.to_numpy() for c in codes}
    words = {c: codes[c].dictionary.to_pylist() for c in codes}
    wide = (names["n"] >= LEAST_WIDTH) & (names["k"] >= LEAST_WIDTH)
    found = {}
    for s, system in enumerate(words["system"]):
        for f, dtype in enumerate(words["gemm_dtype"]):
            for e, engine in enumerate(words["engine"]):
                chosen = wide & (index["system"] == s) & (index["gemm_dtype"] == f) & (index["engine"] == e)
                if system not in SYSTEMS or dtype not in FORMATS or chosen.sum() == 0:
                    continue
                shape = shape_number(*(names[c][chosen] for c in "mnk"))
                _, first = np.unique(shape, return_index=True)
                rows = {c: names[c][chosen][first].astype(float) for c in "mnk"}
                rows["seconds"] = names["latency"][chosen][first].astype(float) / 1e3
                found[SYSTEMS[system], engine, FORMATS[dtype]] = rows
    return found


def shape_number(m, n, k) -> np.ndarray:
    """One whole number per shape."""
    return (np.asarray(m, np.int64) << 40) | (np.asarray(n, np.int64) << 20) | np.asarray(k, np.int64)


def not_above(rows: Rows, other: Rows, *, least_m: float = 0, below_m: float = np.inf) -> Rows:
    """The shorter of both times where a shape with least_m <= m < below_m is in both tables; `rows` elsewhere."""
    own, theirs = (shape_number(r["m"], r["n"], r["k"]) for r in (rows, other))
    at = np.clip(np.searchsorted(theirs, own), 0, theirs.size - 1)
    shared = (theirs[at] == own) & (rows["m"] >= least_m) & (rows["m"] < below_m)
    seconds = np.where(shared, np.minimum(rows["seconds"], other["seconds"][at]), rows["seconds"])
    return rows | {"seconds": seconds}


def only(rows: Rows, mask: np.ndarray) -> Rows:
    return {name: values[mask] for name, values in rows.items()}


def small_shape_s(rows: Rows) -> dict[float, float]:
    """m -> median seconds of the shapes with n and k of 256 to 512: launches and what else does not grow with them."""
    small = (np.maximum(rows["n"], rows["k"]) <= 512) & (np.minimum(rows["n"], rows["k"]) >= 256)
    return {m: float(np.median(rows["seconds"][small & (rows["m"] == m)])) for m in np.unique(rows["m"][small])}


def without_excess(rows: Rows, references: list[Rows]) -> Rows:
    """Less what the smallest shapes of the same m take longer than the fastest reference's."""
    curves = [small_shape_s(r) for r in references]
    own = small_shape_s(rows)
    m_known = np.array(sorted(own))
    least = [min(c[m] for c in [own, *curves] if m in c) for m in m_known]
    excess = np.array([own[m] for m in m_known]) - least
    taken = np.interp(rows["m"], m_known, excess)
    return rows | {"seconds": np.maximum(rows["seconds"] - taken, np.interp(rows["m"], m_known, least))}


def corrected(found: dict[tuple[str, str, str], Rows], accelerator: str) -> dict[tuple[str, str], Rows]:
    """(engine, format) -> rows of one accelerator, with the habits of the collection taken out."""
    own = {(e, f): rows for (a, e, f), rows in found.items() if a == accelerator}
    result = dict(own)
    fp8 = [rows for (_, form), rows in own.items() if form == "fp8"]
    for (engine, form), rows in own.items():
        if form == "fp8":
            result[engine, form] = without_excess(rows, fp8)
        if form in {"int8", "w8a16", "w4a16"}:
            result[engine, form] = without_excess(rows, [own[engine, "bf16"]])
    trtllm = own.get(("trtllm", "fp8_block"))
    if accelerator in BLACKWELL:
        result["sglang", "fp8_block"] = not_above(own["sglang", "fp8_block"], trtllm)
        result["vllm", "fp8_block"] = not_above(own["vllm", "fp8_block"], trtllm)
        result["trtllm", "nvfp4"] = not_above(own["trtllm", "nvfp4"], own["sglang", "nvfp4"])
    elif accelerator in HOPPER:
        below = not_above(own["vllm", "fp8_block"], trtllm, below_m=32)
        result["vllm", "fp8_block"] = not_above(below, own["sglang", "fp8_block"], least_m=32)
    elif accelerator == "l40s":
        result["vllm", "fp8_block"] = not_above(own["vllm", "fp8_block"], trtllm)
    elif ("vllm", "fp8_block") in own:  # RTX PRO 6000: vLLM 0.24 fails on most shapes there, 518 rows are left
        result["vllm", "fp8_block"] = trtllm
    eager = result.get(("vllm", "fp8_block"))
    if eager is not None:  # shapes that no graph was measured on
        known = np.isin(*(shape_number(r["m"], r["n"], r["k"]) for r in (eager, trtllm)))
        result["vllm", "fp8_block"] = only(eager, known)
    return result


def out_of_cache(rows: Rows, accelerator: Accelerator, form: str) -> Rows:
    """No faster than the weights arrive from HBM."""
    share = REACHABLE.get(accelerator.name, OTHERWISE_REACHABLE)
    weights_s = rows["n"] * rows["k"] * FORMS[form].weight_bytes / (accelerator.hbm_bytes_per_s * share)
    return rows | {"seconds": np.maximum(rows["seconds"], weights_s + 1e-6)}


def importance(rows: Rows) -> np.ndarray:
    """Weight of a row: layers of models count in full; tiny and giant widths, and m just above a tile, less."""
    small, large = np.minimum(rows["n"], rows["k"]), np.maximum(rows["n"], rows["k"])
    weight = np.where(small >= 512, 1.0, np.where(large >= 512, 0.3, 0.05)) * np.where(large > 20_000, 0.5, 1.0)
    return weight * np.where((rows["m"] > 16) & (rows["m"] % 16 == 1), 0.05, 1.0)


def rising(log_s: np.ndarray) -> np.ndarray:
    """The nearest logarithms of time that rise along every axis: noise of two neighbouring knots is averaged."""
    for _ in range(3):
        for axis in range(log_s.ndim):
            log_s = np.apply_along_axis(pooled, axis, log_s)
    for axis in range(log_s.ndim):
        log_s = np.maximum.accumulate(log_s, axis=axis)
    return log_s


def pooled(line: np.ndarray) -> np.ndarray:
    """Isotonic regression of one line: neighbours that fall are replaced by their mean, until none does."""
    sums, counts = [], []
    for value in line:
        sums.append(value)
        counts.append(1)
        while len(sums) > 1 and sums[-2] / counts[-2] > sums[-1] / counts[-1]:
            last, count = sums.pop(), counts.pop()
            sums[-1] += last
            counts[-1] += count
    return np.repeat(np.array(sums) / counts, counts)


def fit(rows: Rows, accelerator: Accelerator, form: str) -> Surface:
    """The surface of one key; time rises along every axis at its knots."""
    size = rows["m"].size
    if size > MOST_ROWS:
        rows = only(rows, np.sort(np.random.default_rng(0).choice(size, MOST_ROWS, replace=False)))
    shape = rows["m"], rows["n"], rows["k"]
    log_ratio = np.log(rows["seconds"] / gemm_base_s(*shape, accelerator=accelerator, form=form))
    surface = fit_surface(
        gemm_features(*shape),
        log_ratio,
        (M_KNOTS, WIDTH_KNOTS, WIDTH_KNOTS),
        smooth=SMOOTH.get(accelerator.name, OTHERWISE_SMOOTH),
        row_weight=importance(rows),
    )
    knots = np.meshgrid(*(2**k for k in surface.knots), indexing="ij")
    log_base = np.log(gemm_base_s(*knots, accelerator=accelerator, form=form))
    values = np.round(rising(surface.values + log_base) - log_base, 3)
    return with_values(surface, values, gemm_features(*shape), log_ratio, points=size)


def with_values(surface: Surface, values: np.ndarray, features, log_ratio, *, points: int) -> Surface:
    """The surface with other values at its knots and the spread of measured / fitted that goes with them."""
    changed = replace(surface, values=values)
    low, high = np.quantile(np.exp(log_ratio - changed.log_ratio(*features)), [0.1, 0.9])
    return replace(changed, spread=(float(low), float(high)), points=points)


def tables(folder: Path) -> Iterator[tuple[Accelerator, str, str, Rows]]:
    """(accelerator, engine, format, corrected rows); engine "any" is all of them together."""
    found = read(folder)
    accelerators = load_catalogue().accelerators
    for name in SYSTEMS.values():
        accelerator = accelerators[name]
        own = {
            (engine, form): out_of_cache(rows, accelerator, form)
            for (engine, form), rows in corrected(found, name).items()
        }
        for form in sorted({form for _, form in own}):
            kin = {engine: rows for (engine, f), rows in own.items() if f == form}
            for engine, rows in kin.items():
                yield accelerator, engine, form, rows
            yield accelerator, "any", form, {c: np.concatenate([r[c] for r in kin.values()]) for c in rows}


def surfaces(folder: Path) -> Iterator[tuple[tuple[str, str, str, str], Surface]]:
    """Every surface of dense GEMMs that the tables in `folder` hold."""
    for accelerator, engine, form, rows in tables(folder):
        yield ("gemm", accelerator.name, engine, form), fit(rows, accelerator, form)

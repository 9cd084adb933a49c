"""Surfaces of latent attention (DeepSeek), dense and sparse, and of gated delta net.

Attention kernels alone: generation_mla.parquet, context_mla.parquet, gdn.parquet. Whole modules (projections, norms,
rotary embedding, attention): mla_generation_module, dsa_generation_module and dsa_context_module; their attention is
what differs between rows whose other work is the same. Milliseconds per call. What stays in the L2 cache between calls
is priced from HBM (see benchmarks.surfaces.attention). What is the collection's and not an engine's:

1. vLLM 0.14's kernel rows ran without CUDA graphs: 140 to 170 us whatever the shape, where SGLang's take 12. Decode
   comes from vLLM 0.24's modules instead: module(batch, context) - module(batch, 2) plus the shortest kernel of the
   same batch. Of its prompts the rows beyond 400 us are kept, TensorRT-LLM's stand in for those under 100.
2. SGLang's prompts outside data-centre Blackwell ran absorbed: 8,192 tokens on 16 heads take 1.9 ms on H100, 12 on
   RTX PRO 6000 and 16 on L40S, where TensorRT-LLM takes 0.64, 1.5 and 2.1 (the FLOPs of 576 + 512 wide products against
   192 + 128). The engine expands keys and values and calls FlashAttention 3 on Hopper, as vLLM does: it takes those
   rows there, and no rows elsewhere.
3. Sparse attention: TensorRT-LLM's decode at a context of exactly 2,048 takes twice what 4,096 takes; vLLM's modules
   ran without graphs for decode, SGLang's and vLLM's for prompts (0.8 to 1.5 ms at least): rows near their shortest
   are left out.

A sparse prompt's attention is its module less the projections: those of TensorRT-LLM's dense module over prompts of 64
tokens, as many in all, and the indexer's at the same speed. SGLang attends densely up to 2,048 tokens, hidden under
the launches here: it takes the rows of dense attention.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.surfaces.attention import (
    BLACKWELL,
    HOPPER,
    L2_BYTES,
    LENGTH_KNOTS,
    SYSTEMS,
    Columns,
    Key,
    Rows,
    by_engine,
    fit,
    from_memory,
    only,
    pooled,
    read,
    renamed,
    rows_of,
    sampled,
    serving,
    split,
    unique,
)

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import Surface
from trilemma.latency.attention import (
    KernelCall,
    decode_dsa,
    decode_mla,
    gdn_decode,
    gdn_prefill,
    prefill_dsa,
    prefill_mla,
)

EAGER_S = 400e-6  # vLLM 0.14's prompts are free of the launch floor from here on
SHORT_S = 100e-6
INDEXER_LAUNCHES_S = 12e-6  # scores, choice and cache write of an index at no context
FLOOR_SHARE = 1.5
LATENT_BYTES = {"fp8": 576.0, "bf16": 1152.0}
EAGER_FLOOR_SHARE = 2.2  # SGLang's modules have two paths, one with twice the launches
SPARSE_MODELS = {  # index heads
    "deepseek-ai/DeepSeek-V3.2": 64, "zai-org/GLM-5": 32, "zai-org/GLM-5-FP8": 32,
}  # fmt: skip
DENSE_TWIN = "deepseek-ai/DeepSeek-V3.2"  # the model whose dense module is DeepSeek-V3's
INDEXER_WEIGHTS, SHARED_WEIGHTS, WEIGHTS_PER_HEAD = 13.96e6, 15.14e6, 1.344e6  # of DeepSeek-V3.2's projections
DENSE_UP_TO = 2048
SHORT_PROMPT = 64

CONTEXT_KNOTS = (1, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17)
SEQUENCE_KNOTS = (0, 2, 3, 4, 5, 6, 7, 8, 9, 10)
HEAD_KNOTS = (0, 2, 3, 4, 5, 6, 7)
DECODE_KNOTS = (CONTEXT_KNOTS, SEQUENCE_KNOTS, HEAD_KNOTS)
PREFILL_KNOTS = ((*LENGTH_KNOTS, 15), (4, 7, 9, 11, 12, 13, 14, 15, 16, 18, 21), (0, 3, 4, 5, 7))
SPARSE_PREFILL_KNOTS = ((5, 7, 9, 11, 12, 13, 14, 15, 17), (4, 7, 9, 10, 11, 12, 13, 14, 15), (3, 4, 5, 6, 7))
STATE_BYTES = 128 * 128 * 4  # of a value head of gated delta net
VALUE_HEAD_KNOTS = (1, 2, 3, 4, 5, 6)


def form_of(words: np.ndarray) -> np.ndarray:
    return np.where(words == "fp8", "fp8", "bf16")


def lookup(columns: Columns, *names: str) -> dict[tuple[float, ...], float]:
    """Shape -> seconds."""
    return dict(zip(zip(*(columns[n].tolist() for n in names), strict=True), columns["seconds"].tolist(), strict=True))


def of_shapes(known: dict[tuple[float, ...], float], *columns: np.ndarray) -> np.ndarray:
    """Seconds of each row's shape, NaN where it is not known."""
    return np.array([known.get(shape, np.nan) for shape in zip(*(c.tolist() for c in columns), strict=True)])


# Decode --------------------------------------------------------------------------------------------------------------


def decode_kernels(folder: Path) -> dict[tuple[str, str, str], Columns]:
    """(accelerator, format, engine) -> rows of kernels measured alone, vLLM's not among them."""
    table = read(
        folder / "generation_mla.parquet", system="system", engine="engine", form="kv_cache_dtype",
        sequences="batch_size", heads="num_heads", isl="isl", step="step", seconds="latency",
    )  # fmt: skip
    table["context"] = table.pop("isl") + table.pop("step")
    table["form"], table["seconds"] = form_of(table["form"]), table["seconds"] / 1e3
    table = only(table, table["engine"] != "vllm")
    return {
        (SYSTEMS[system], form, engine): unique(part, "sequences", "heads", "context")
        for (system, form, engine), part in split(table, "system", "form", "engine")
    }


def shortest(kernels: dict[tuple[str, str, str], Columns], accelerator: str) -> dict[tuple[float, ...], float]:
    """(sequences, heads) -> seconds of the fastest kernel over a context of two tokens."""
    best: dict[tuple[float, ...], float] = {}
    for (name, _, _), part in kernels.items():
        if name == accelerator:
            for shape, seconds in lookup(only(part, part["context"] == 2), "sequences", "heads").items():
                best[shape] = min(best.get(shape, np.inf), seconds)
    return best


def decode_modules(folder: Path, kernels: dict[tuple[str, str, str], Columns]) -> dict[tuple[str, str, str], Columns]:
    """vLLM's rows: what its modules take longer than with two tokens of context, and the shortest kernel."""
    table = read(
        folder / "mla_generation_module.parquet", system="system", engine="engine", form="kv_cache_dtype",
        gemm="gemm_type", sequences="batch_size", heads="num_heads", context="step", seconds="latency",
    )  # fmt: skip
    table["form"], table["seconds"] = form_of(table["form"]), table["seconds"] / 1e3
    table = only(table, (table["engine"] == "vllm") & np.isin(table["gemm"], ["bfloat16", "fp8_block"]))
    found: dict[tuple[str, str, str], list[Columns]] = {}
    for (system, form, _), part in split(table, "system", "form", "gemm"):
        name = SYSTEMS[system]
        rows = unique(part, "sequences", "heads", "context")
        least = of_shapes(
            lookup(only(rows, rows["context"] == 2), "sequences", "heads"), rows["sequences"], rows["heads"]
        )
        kernel = of_shapes(shortest(kernels, name), rows["sequences"], rows["heads"])
        seconds = np.maximum(rows["seconds"] - least, 0.0) + kernel
        found.setdefault((name, form, "vllm"), []).append(only(rows | {"seconds": seconds}, np.isfinite(seconds)))
    together = {}
    for key, parts in found.items():
        columns = {c: np.concatenate([p[c] for p in parts]) for c in parts[0]}
        if columns["seconds"].size:
            together[key] = unique(columns, "sequences", "heads", "context")
    return together


def decode_base(context, sequences, heads, *, width: float, accelerator: Accelerator) -> KernelCall:
    return decode_mla(sequences, context, heads=heads, kv_bytes_per_element=width, accelerator=accelerator)


def decode_tables(folder: Path) -> Iterator[Rows]:
    kernels = decode_kernels(folder)
    accelerators = load_catalogue().accelerators
    found: dict[tuple[str, str], list[Rows]] = {}
    for (name, form, engine), part in (kernels | decode_modules(folder, kernels)).items():
        read_bytes = part["sequences"] * part["context"] * LATENT_BYTES[form]
        seconds, kept = from_memory(part, read_bytes, L2_BYTES[name], "sequences", "heads")
        call = decode_mla(
            kept["sequences"],
            kept["context"],
            heads=kept["heads"],
            kv_bytes_per_element=LATENT_BYTES[form] / 576,
            accelerator=accelerators[name],
        )
        weight = serving(kept["sequences"], kept["context"], 32768)
        rows = rows_of(
            (call.operation, name, engine, form),
            call,
            seconds,
            weight,
            DECODE_KNOTS,
            base_at=partial(decode_base, width=LATENT_BYTES[form] / 576, accelerator=accelerators[name]),
            rising=(0, 1, 2),
        )
        found.setdefault((name, form), []).append(rows)
    for engines in found.values():
        yield from by_engine(engines)


# Prefill -------------------------------------------------------------------------------------------------------------


def prefill_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "context_mla.parquet", system="system", engine="engine", form="kv_cache_dtype", prompts="batch_size",
        heads="num_heads", new_tokens="isl", seconds="latency",
    )  # fmt: skip
    table["form"], table["seconds"] = form_of(table["form"]), table["seconds"] / 1e3
    table = only(table, table["new_tokens"] > 1)
    parts = {
        (SYSTEMS[system], form, engine): unique(part, "prompts", "heads", "new_tokens")
        for (system, form, engine), part in split(table, "system", "form", "engine")
    }
    for name in SYSTEMS.values():
        for form in ("bf16", "fp8"):
            own = parts.get((name, form, "trtllm"))
            if own is None:
                continue
            engines = {"trtllm": own}
            if name in BLACKWELL:
                engines["sglang"] = parts[name, form, "sglang"]
            if name in HOPPER:  # the KV cache's format changes the expansion, not the attention
                long = parts[name, "bf16", "vllm"]
                short = parts[name, "bf16", "trtllm"]
                long, short = only(long, long["seconds"] > EAGER_S), only(short, short["seconds"] < SHORT_S)
                expanded = {c: np.concatenate([long[c], short[c]]) for c in long}
                engines |= {"vllm": expanded, "sglang": expanded}
            yield from by_engine([prefill_rows(part, name, e, form) for e, part in engines.items()])


def prefill_rows(part: Columns, name: str, engine: str, form: str) -> Rows:
    accelerator = load_catalogue().accelerators[name]
    call = prefill_mla(part["new_tokens"], 0.0, prompts=part["prompts"], heads=part["heads"], accelerator=accelerator)
    weight = serving(part["prompts"], part["new_tokens"], 32768)
    return rows_of(
        (call.operation, name, engine, form),
        call,
        part["seconds"],
        weight,
        PREFILL_KNOTS,
        base_at=lambda twice_keys, products, heads: prefill_mla(
            twice_keys, 0.0, prompts=products / (heads * twice_keys), heads=heads, accelerator=accelerator
        ),
        rising=(1,),
    )


# Sparse attention ----------------------------------------------------------------------------------------------------


def sparse_modules(folder: Path, file: str) -> Iterator[tuple[tuple[str, ...], Columns]]:
    """(system, engine, model, kv format, GEMM format) and rows of modules that have an indexer."""
    table = read(
        folder / file, system="system", engine="engine", model="model", form="kv_cache_dtype", gemm="gemm_type",
        operation="op_name", sequences="batch_size", heads="num_heads", new_tokens="isl", step="step",
        seconds="latency",
    )  # fmt: skip
    table["form"], table["seconds"] = form_of(table["form"]), table["seconds"] / 1e3
    whole = np.char.endswith(table.pop("operation"), "module")
    table = only(table, whole & np.isin(table["model"], list(SPARSE_MODELS)))
    for key, part in split(table, "system", "engine", "model", "form", "gemm"):
        yield key, unique(part, "sequences", "heads", "new_tokens", "step")


def sparse_decode_base(
    context, sequences, heads, *, index_heads: int, width: float, accelerator: Accelerator
) -> KernelCall:
    return decode_dsa(
        sequences,
        context,
        heads=heads,
        index_heads=index_heads,
        kv_bytes_per_element=width,
        accelerator=accelerator,
    )


def sparse_decode_tables(folder: Path) -> Iterator[Rows]:
    kernels = decode_kernels(folder)
    accelerators = load_catalogue().accelerators
    found: dict[tuple[str, str, str], list[Rows]] = {}
    for (system, engine, model, form, _), part in sparse_modules(folder, "dsa_generation_module.parquet"):
        name = SYSTEMS[system]
        first = only(part, part["step"] == part["step"].min())
        least = of_shapes(lookup(first, "sequences", "heads"), part["sequences"], part["heads"])
        kernel = of_shapes(shortest(kernels, name), part["sequences"], part["heads"])
        seconds = np.maximum(part["seconds"] - least, 0.0) + kernel + INDEXER_LAUNCHES_S
        kept = np.isfinite(seconds) & (part["sequences"] <= 256)
        if engine == "trtllm":
            kept &= part["step"] != 2048
        if engine == "vllm":
            kept &= part["seconds"] > FLOOR_SHARE * part["seconds"].min()
        rows = only(part | {"seconds": seconds}, kept)
        base_at = partial(
            sparse_decode_base,
            index_heads=SPARSE_MODELS[model],
            width=LATENT_BYTES[form] / 576,
            accelerator=accelerators[name],
        )
        call = base_at(rows["step"], rows["sequences"], rows["heads"])
        weight = serving(rows["sequences"], rows["step"], 131072)
        key = call.operation, name, engine, form
        found.setdefault(key[1:], []).append(
            rows_of(key, call, rows["seconds"], weight, DECODE_KNOTS, base_at=base_at, rising=(0, 1, 2))
        )
    yield from engines_of(found)


def projections(folder: Path) -> dict[tuple[str, str], dict[tuple[float, ...], float]]:
    """(system, GEMM format) -> (tokens, heads) -> seconds of a sparse module without its attention."""
    table = read(
        folder / "mla_context_module.parquet", system="system", engine="engine", form="kv_cache_dtype",
        gemm="gemm_type", sequences="batch_size", heads="num_heads", new_tokens="isl", seconds="latency",
    )  # fmt: skip
    short = (table["engine"] == "trtllm") & (table["form"] == "bfloat16") & (table["new_tokens"] == SHORT_PROMPT)
    found = {}
    for key, part in split(only(table, short), "system", "gemm"):
        rows = unique(part | {"seconds": part["seconds"] / 1e3}, "sequences", "heads", "new_tokens")
        rows["seconds"] *= 1 + INDEXER_WEIGHTS / (SHARED_WEIGHTS + WEIGHTS_PER_HEAD * rows["heads"])
        rows["tokens"] = rows["sequences"] * rows["new_tokens"]
        found[key] = lookup(rows, "tokens", "heads")
    return found


def sparse_prefill_tables(folder: Path) -> Iterator[Rows]:
    accelerators = load_catalogue().accelerators
    linear = projections(folder)
    found: dict[tuple[str, str, str], list[Rows]] = {}
    for (system, engine, model, form, gemm), part in sparse_modules(folder, "dsa_context_module.parquet"):
        if model != DENSE_TWIN or (system, gemm) not in linear or engine == "vllm":
            continue  # vLLM's rows were timed without CUDA graphs: 14 ms for a step of one token, SGLang's 0.7
        name = SYSTEMS[system]
        other = of_shapes(linear[system, gemm], part["sequences"] * part["new_tokens"], part["heads"])
        seconds = part["seconds"] - other
        kept = np.isfinite(seconds) & (seconds > 0.2 * part["seconds"])  # the rest is lost in the projections
        if engine != "trtllm":
            kept &= part["seconds"] > EAGER_FLOOR_SHARE * part["seconds"].min()
        rows = only(part | {"seconds": seconds}, kept)
        key = "prefill_dsa", name, engine, form
        found.setdefault(key[1:], []).append(sparse_rows(key, rows, accelerators[name]))
    for rows in prefill_tables(folder):
        _, name, engine, form = rows.key
        if engine == "sglang" and (name, engine, form) in found:
            twice_keys, products, heads = (2**f for f in rows.features)
            short = (twice_keys <= DENSE_UP_TO) & (heads >= 8)
            dense = {
                "new_tokens": twice_keys, "step": np.zeros_like(twice_keys), "heads": heads,
                "sequences": products / (heads * twice_keys), "seconds": rows.seconds,
            }  # fmt: skip
            key = "prefill_dsa", name, engine, form
            found[key[1:]].append(sparse_rows(key, only(dense, short), accelerators[name]))
    yield from engines_of(found)


def sparse_rows(key: Key, rows: Columns, accelerator: Accelerator) -> Rows:
    shape = {"index_heads": SPARSE_MODELS[DENSE_TWIN], "accelerator": accelerator}
    call = prefill_dsa(rows["new_tokens"], rows["step"], prompts=rows["sequences"], heads=rows["heads"], **shape)
    return rows_of(
        key,
        call,
        rows["seconds"],
        serving(rows["sequences"], rows["new_tokens"], 32768),
        SPARSE_PREFILL_KNOTS,
        base_at=lambda twice_keys, tokens, heads: prefill_dsa(
            twice_keys, 0.0, prompts=tokens / twice_keys, heads=heads, **shape
        ),
        rising=(1, 2),  # not by keys: some engines attend to index_topk keys however few there are
    )


def engines_of(found: dict[tuple[str, str, str], list[Rows]]) -> Iterator[Rows]:
    """(accelerator, engine, format) -> tables of several models: each engine's together, then all engines'."""
    kin: dict[tuple[str, str], list[Rows]] = {}
    for (name, engine, form), parts in found.items():
        together = pooled(parts)
        operation = parts[0].key[0]
        kin.setdefault((name, form), []).append(renamed(together, (operation, name, engine, form)))
    for engines in kin.values():
        yield from by_engine([rows for rows in engines if rows.seconds.size > 200])


# Gated delta net -----------------------------------------------------------------------------------------------------


def gdn_decode_base(sequences, value_heads, *, accelerator: Accelerator) -> KernelCall:
    return gdn_decode(sequences, key_heads=value_heads / 2, value_heads=value_heads, accelerator=accelerator)


def gdn_prefill_base(new_tokens, prompts, value_heads, *, accelerator: Accelerator) -> KernelCall:
    return gdn_prefill(
        new_tokens, prompts=prompts, key_heads=value_heads / 2, value_heads=value_heads, accelerator=accelerator
    )


def gdn_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "gdn.parquet", system="system", engine="engine", phase="phase", kernel="kernel_source",
        sequences="batch_size", new_tokens="seq_len", key_heads="num_k_heads", value_heads="num_v_heads",
        seconds="latency",
    )  # fmt: skip
    table["seconds"] = table["seconds"] / 1e3
    accelerators = load_catalogue().accelerators
    shape = ("sequences", "new_tokens", "key_heads", "value_heads")
    found: dict[tuple[str, str], list[Rows]] = {}
    for (system, phase, engine), part in split(table, "system", "phase", "engine"):
        kernels = [unique(rows, *shape) for _, rows in split(part, "kernel")]
        if len(kernels) < 2:
            continue  # A100's prompts: the convolution alone
        known = lookup(kernels[1], *shape)
        rule = of_shapes(known, *(kernels[0][s] for s in shape))
        rows = only(kernels[0] | {"seconds": kernels[0]["seconds"] + rule}, np.isfinite(rule))
        accelerator = accelerators[SYSTEMS[system]]
        if phase == "generation":  # states stay in the L2 cache as a small KV cache does
            rows["context"] = rows["sequences"]
            state_bytes = rows["sequences"] * rows["value_heads"] * STATE_BYTES
            seconds, rows = from_memory(rows, state_bytes, L2_BYTES[accelerator.name], "key_heads", "value_heads")
            rows["seconds"] = seconds
        heads = {"key_heads": rows["key_heads"], "value_heads": rows["value_heads"], "accelerator": accelerator}
        if phase == "generation":
            call = gdn_decode(rows["sequences"], **heads)
            knots = ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), VALUE_HEAD_KNOTS)
            base_at = partial(gdn_decode_base, accelerator=accelerator)
        else:
            call = gdn_prefill(rows["new_tokens"], prompts=rows["sequences"], **heads)
            knots = ((0, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15), (0, 1, 2, 3, 4, 5, 6), VALUE_HEAD_KNOTS)
            base_at = partial(gdn_prefill_base, accelerator=accelerator)
        key = call.operation, accelerator.name, engine, "bf16"
        weight = serving(rows["sequences"], np.maximum(rows["new_tokens"], 128), 32768)
        found.setdefault((system, phase), []).append(
            rows_of(key, call, rows["seconds"], weight, knots, base_at=base_at, rising=tuple(range(len(knots))))
        )
    for engines in found.values():
        yield from by_engine(engines)


def tables(folder: Path) -> Iterator[Rows]:
    yield from decode_tables(folder)
    yield from prefill_tables(folder)
    yield from sparse_decode_tables(folder)
    yield from sparse_prefill_tables(folder)
    yield from gdn_tables(folder)


def surfaces(folder: Path) -> Iterator[tuple[Key, Surface]]:
    """Every surface of latent and linear attention that the tables in `folder` hold."""
    for rows in tables(folder):
        yield rows.key, fit(sampled(rows))

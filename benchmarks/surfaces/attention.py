"""Surfaces of attention kernels with separate keys and values (multi-head, grouped, multi-query, sliding windows).

Rows: generation_attention.parquet and context_attention.parquet, milliseconds per call, CUDA graphs replayed on one set
of buffers (seen in the source of AIConfigurator's collector). Three things in them are the collection's, not an
engine's:

1. A KV cache that fits the L2 cache stays there between replays: from one context to its double the time rises by a
   rate above HBM bandwidth up to the cache's size (H100: 5.4 TB/s), jumps (33 to 67 MB: 19 to 40 us, where HBM would
   take 10 more), and rises at HBM's rate beyond (3.2 TB/s). In a model the other layers' weights and caches pass
   between two readings of one layer's, so that all of it comes from HBM: below the cache's size the difference of the
   two rates times the bytes is added, and rows near the size are left out.
2. TensorRT-LLM 1.0's decode rows on A100 reach 3.4 TB/s of a 2.0 TB/s memory (keys and values in one buffer).
3. Rows of prompts of one token are decode kernels.

The engines' default back ends are the ones measured: FlashAttention 3 on Hopper and TensorRT-LLM's generated kernels
through FlashInfer on Blackwell for vLLM, fa3 and trtllm_mha for SGLang, its own for TensorRT-LLM; where SGLang has a
shape twice (trtllm_mha, and flashinfer or triton, which it falls back to for other features), trtllm_mha is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.surfaces.grid import fit_surface, weights
from scipy.optimize import isotonic_regression
from scipy.spatial import cKDTree

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import Surface
from trilemma.latency.attention import KernelCall, decode_attention, prefill_attention

Key = tuple[str, str, str, str]
Columns = dict[str, np.ndarray]

# name in the tables -> name in the catalogue
SYSTEMS = {
    "a100_sxm": "a100_sxm", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm", "b200_sxm": "b200_sxm",
    "b300_sxm": "b300_sxm", "gb200": "gb200", "gb300": "gb300", "l40s": "l40s",
    "rtx_pro_6000_server": "rtx_pro_6000",
}  # fmt: skip
L2_BYTES = {
    "a100_sxm": 40e6, "h100_sxm": 50e6, "h200_sxm": 50e6, "b200_sxm": 126e6, "b300_sxm": 126e6, "gb200": 126e6,
    "gb300": 126e6, "l40s": 96e6, "rtx_pro_6000": 128e6,
}  # fmt: skip
HOPPER = ("h100_sxm", "h200_sxm")
BLACKWELL = ("b200_sxm", "b300_sxm", "gb200", "gb300")
HOT, COLD = 0.7, 1.4  # shares of the L2 cache below which bytes are taken to stay in it, and above which they do not
FALLBACKS = ("flashinfer", "triton")
MOST_ROWS = 20_000
OUTLIER = 1.6  # an engine that takes so many times the fastest one's time says nothing of others
STEPS_PER_UNIT = 512  # values are kept to 1/512: 0.2% of a time, and half the bytes when compressed

CONTEXT_KNOTS = (1, 5, 7, 8, 9, 10, 11, 12, 13, 15, 17)
KV_HEAD_KNOTS = (0, 2, 4, 6, 7, 8, 9, 10, 12, 14)  # sequences x KV heads
GROUP_KNOTS = (0, 1, 2, 3, 4, 5)
WIDE_GROUP_KNOTS = (*GROUP_KNOTS, 6, 7)  # TensorRT-LLM leaves its fast kernel beyond 32 query heads a KV head
HEAD_DIM_KNOTS = (6, 7, np.log2(192), 8, 9)
WINDOW_KNOTS = ((4, 6, 7, 8, 10, 13), (0, 3, 6, 8, 10, 13), (0, 2, 3, 5), HEAD_DIM_KNOTS, (0, 1, 3, 6))
# Before Blackwell TensorRT-LLM splits a sequence by its whole context, window or not.
SPLITTING_WINDOW_KNOTS = (
    (4, 7, 8, 10, 13), (0, 2, 4, 5, 6, 7, 8, 10, 12), (0, 2, 3, 5), HEAD_DIM_KNOTS, (0, 1, 2, 3, 4, 6)
)  # fmt: skip
LENGTH_KNOTS = (4, 6, 7, 8, 9, 10, 11, 12, 13, 14)  # twice the mean keys of a token
ROW_KNOTS = (4, 7, 9, 11, 12, 13, 14, 16, 18, 21)  # prompts x heads x new tokens
PREFILL_GROUP_KNOTS = (0, 1, 2, 3, 5)
PREFILL_WINDOW_KNOTS = ((5, 7, 8, 10, 11, 12, 13), (5, 8, 10, 11, 12, 13, 14, 17, 21), (0, 2, 4), HEAD_DIM_KNOTS)
# Engines differ more among each other than a fine grid tells apart.
POOLED_KNOTS = {
    "decode_attention": ((1, 6, 8, 9, 10, 11, 12, 13, 15), (0, 3, 6, 8, 9, 10, 14), (0, 1, 2, 3, 4, 5), (6, 7, 8, 9)),
    "decode_window_attention": ((4, 7, 8, 10, 13), (0, 4, 8, 10, 13), (0, 3, 5), (6, 7, 8), (0, 2, 5)),
    "prefill_attention": ((4, 7, 9, 10, 11, 12, 14), (4, 8, 11, 13, 15, 21), (0, 2, 3, 5), (6, 7, 8, 9)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Measured kernels of one key: seconds (n,) beside their base times and features, and how much each counts."""

    key: Key
    seconds: np.ndarray
    base_s: np.ndarray
    features: tuple[np.ndarray, ...]
    weight: np.ndarray
    knots: tuple[Sequence[float], ...]
    base_at: Callable[..., np.ndarray]  # seconds at 2 ** features
    rising: tuple[int, ...]  # axes along which time does not fall

    @property
    def log_ratio(self) -> np.ndarray:
        return np.log(self.seconds / self.base_s)

    def only(self, mask: np.ndarray) -> "Rows":
        return replace(
            self,
            seconds=self.seconds[mask],
            base_s=self.base_s[mask],
            features=tuple(f[mask] for f in self.features),
            weight=self.weight[mask],
        )


def rows_of(
    key: Key, call: KernelCall, seconds: np.ndarray, weight: np.ndarray, knots, *, base_at, rising=(0, 1)
) -> Rows:
    return Rows(
        key=key,
        seconds=seconds,
        base_s=call.base.seconds,
        features=call.features,
        weight=weight,
        knots=tuple(knots),
        base_at=lambda *shape: base_at(*shape).base.seconds,
        rising=rising,
    )


def renamed(rows: Rows, key: Key) -> Rows:
    return replace(rows, key=key)


def pooled(found: Sequence[Rows]) -> Rows:
    """The rows of several engines as one table under engine "any"."""
    operation, accelerator, _, form = found[0].key
    together = Rows(
        key=(operation, accelerator, "any", form),
        seconds=np.concatenate([r.seconds for r in found]),
        base_s=np.concatenate([r.base_s for r in found]),
        features=tuple(np.concatenate(f) for f in zip(*(r.features for r in found), strict=True)),
        weight=np.concatenate([r.weight for r in found]),
        knots=POOLED_KNOTS.get(operation, found[0].knots),
        base_at=found[0].base_at,
        rising=found[0].rising,
    )
    return sampled(together)


def sampled(rows: Rows) -> Rows:
    """At most MOST_ROWS of them, the same ones each time."""
    size = rows.seconds.size
    if size <= MOST_ROWS:
        return rows
    return rows.only(np.sort(np.random.default_rng(0).choice(size, MOST_ROWS, replace=False)))


def used_knots(x: np.ndarray, knots: Sequence[float]) -> np.ndarray:
    """The knots that some row lies at or next to."""
    k = np.asarray(knots, float)
    step = np.interp(x, k, np.arange(k.size))
    return k[np.unique(np.concatenate([np.floor(step + 1e-6), np.ceil(step - 1e-6)]).astype(int))]


def fit(rows: Rows, *, smooth: float = 0.03) -> Surface:
    """The surface of one key. A crossing of knots that no row is near takes what its nearest rows have, weakly, so
    that the smoothness does not extrapolate a slope there."""
    knots = [used_knots(x, k) for x, k in zip(rows.features, rows.knots, strict=True)]
    steps = np.stack([np.interp(x, k, np.arange(k.size)) for x, k in zip(rows.features, knots, strict=True)], axis=1)
    corners = np.stack([c.ravel() for c in np.meshgrid(*(np.arange(k.size) for k in knots), indexing="ij")], axis=1)
    distance, nearest = cKDTree(steps).query(corners, k=min(8, len(steps)))
    far = distance.reshape(len(corners), -1)[:, 0] > 1.0
    log_ratio = rows.log_ratio
    anchors = [k[corners[far, d]] for d, k in enumerate(knots)]
    stand_in = np.median(log_ratio[nearest.reshape(len(corners), -1)[far]], axis=1)
    surface = fit_surface(
        [np.concatenate([x, a]) for x, a in zip(rows.features, anchors, strict=True)],
        np.concatenate([log_ratio, stand_in]),
        knots,
        smooth=smooth,
        row_weight=np.concatenate([rows.weight, np.full(stand_in.size, 0.1)]),
    )
    return settled(surface, rows)


def settled(surface: Surface, rows: Rows) -> Surface:
    """The surface with times that rise where they should, rounded values, and the spread of the rows themselves."""
    log_base = np.log(rows.base_at(*np.meshgrid(*(2.0**k for k in surface.knots), indexing="ij")))
    support = weights(rows.features, surface.knots).T @ rows.weight + 1e-3
    log_s = surface.values + log_base
    for _ in range(3):
        for axis in rows.rising:
            log_s = isotonic(log_s, support.reshape(log_s.shape), axis)
    values = np.round((log_s - log_base) * STEPS_PER_UNIT) / STEPS_PER_UNIT
    rounded = replace(surface, values=values, points=rows.seconds.size)
    low, high = np.quantile(np.exp(rows.log_ratio - rounded.log_ratio(*rows.features)), [0.1, 0.9])
    return replace(rounded, spread=(float(low), float(high)))


def isotonic(values: np.ndarray, support: np.ndarray, axis: int) -> np.ndarray:
    """The nearest values that do not fall along `axis`, those with more rows moved less."""
    lines, weight = (np.moveaxis(a, axis, -1).copy() for a in (values, support))
    for at in np.argwhere((np.diff(lines, axis=-1) < 0).any(axis=-1)):
        line = tuple(at)
        lines[line] = isotonic_regression(lines[line], weights=weight[line]).x
    return np.moveaxis(lines, -1, axis)


# Reading -------------------------------------------------------------------------------------------------------------


def read(path: Path, **renamed: str) -> Columns:
    """Columns of a table by new names; words as numpy strings."""
    table = pq.read_table(path, columns=list(renamed.values()))
    columns = {}
    for new, old in renamed.items():
        column = table[old].combine_chunks()
        if pa.types.is_dictionary(column.type):
            columns[new] = np.array(column.dictionary.to_pylist())[column.indices.to_numpy(zero_copy_only=False)]
        else:
            columns[new] = column.to_numpy(zero_copy_only=False)
    return columns


def only(columns: Columns, mask: np.ndarray) -> Columns:
    return {name: values[mask] for name, values in columns.items()}


def split(columns: Columns, *names: str) -> Iterator[tuple[tuple[str, ...], Columns]]:
    """The table apart by the words in `names`, in their order."""
    codes = np.zeros(len(columns[names[0]]), np.int64)
    words = []
    for name in names:
        found, index = np.unique(columns[name], return_inverse=True)
        words.append(found)
        codes = codes * len(found) + index
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for part in np.split(order, starts[1:]):
        yield tuple(str(columns[name][part[0]]) for name in names), only(columns, part)


def unique(columns: Columns, *names: str) -> Columns:
    """One row per shape: the median of its times, in the order of the shapes."""
    keys = np.stack([columns[n].astype(np.int64) for n in names], axis=1)
    shapes, index = np.unique(keys, axis=0, return_inverse=True)
    order = np.lexsort((columns["seconds"], index.ravel()))
    counts = np.bincount(index.ravel())
    middle = np.cumsum(counts) - counts + counts // 2
    row = {n: shapes[:, i].astype(float) for i, n in enumerate(names)}
    return row | {"seconds": columns["seconds"][order][middle].astype(float)}


def from_memory(columns: Columns, read_bytes: np.ndarray, l2_bytes: float, *shape: str) -> tuple[np.ndarray, Columns]:
    """(seconds, rows kept): times as if nothing stayed in the L2 cache; `shape` are the columns besides `context`.

    The rates are medians over pairs of rows that differ by twice the context.
    """
    order = np.lexsort((columns["context"], *(columns[s] for s in shape)))
    first, second = order[:-1], order[1:]
    pair = columns["context"][second] == 2 * columns["context"][first]
    for s in shape:
        pair &= columns[s][first] == columns[s][second]
    first, second = first[pair], second[pair]
    grown = read_bytes[second] > read_bytes[first]  # not where a window caps both
    first, second = first[grown], second[grown]
    rate = (columns["seconds"][second] - columns["seconds"][first]) / (read_bytes[second] - read_bytes[first])
    inside = (read_bytes[second] < HOT * l2_bytes) & (read_bytes[first] > 0.15 * l2_bytes)
    outside = read_bytes[first] > COLD * l2_bytes
    gain = max(0.0, float(np.median(rate[outside]) - np.median(rate[inside])))
    hot = read_bytes < HOT * l2_bytes
    kept = hot | (read_bytes > COLD * l2_bytes)
    seconds = columns["seconds"] + np.where(hot, read_bytes * gain, 0.0)
    return seconds[kept], only(columns, kept)


def serving(sequences: np.ndarray, tokens: np.ndarray, longest: float) -> np.ndarray:
    """How much a row counts: shapes that servers see in full, the ends of the tables less."""
    return np.where((sequences <= 512) & (tokens >= 128) & (tokens <= longest), 1.0, 0.3)


def without_fallbacks(columns: Columns, *shape: str) -> Columns:
    """Rows of a fallback kernel left out where the same shape has the default one."""
    keys = np.stack([columns[s].astype(np.int64) for s in shape], axis=1)
    _, index = np.unique(keys, axis=0, return_inverse=True)
    fallback = np.isin(columns["source"], FALLBACKS)
    has_default = np.bincount(index.ravel(), weights=~fallback) > 0
    return only(columns, ~(fallback & has_default[index.ravel()]))


def by_engine(found: Sequence[Rows]) -> Iterator[Rows]:
    """Each engine's rows, and under "any" those of all engines that are within OUTLIER of the fastest."""
    for rows in found:
        yield sampled(rows)
    typical = [float(np.median(rows.log_ratio)) for rows in found]
    yield pooled([r for r, t in zip(found, typical, strict=True) if t <= min(typical) + np.log(OUTLIER)])


# Decode --------------------------------------------------------------------------------------------------------------


def decode_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "generation_attention.parquet",
        system="system", engine="engine", source="kernel_source", form="kv_cache_dtype", sequences="batch_size",
        isl="isl", step="step", heads="num_heads", kv_heads="num_key_value_heads", head_dim="head_dim",
        window="window_size", seconds="latency",
    )  # fmt: skip
    table["context"] = table.pop("isl") + table.pop("step")
    table["window"] = np.nan_to_num(table["window"]).astype(np.int64)
    table["windowed"] = np.where(table["window"] > 0, "window", "all")
    table["seconds"] = table["seconds"] / 1e3
    table = only(table, ~((table["system"] == "a100_sxm") & (table["engine"] == "trtllm")))
    accelerators = load_catalogue().accelerators
    found: dict[tuple[str, str, str], list[Rows]] = {}
    for (system, form, windowed, engine), part in split(table, "system", "form", "windowed", "engine"):
        rows = decode_rows(part, accelerators[SYSTEMS[system]], engine, form, windowed=windowed == "window")
        found.setdefault((system, form, windowed), []).append(rows)
    for engines in found.values():
        yield from by_engine(engines)


def decode_rows(part: Columns, accelerator: Accelerator, engine: str, form: str, *, windowed: bool) -> Rows:
    shape = ("sequences", "heads", "kv_heads", "head_dim", "window")
    part = unique(without_fallbacks(part, *shape, "context"), *shape, "context")
    width = 1 if form == "fp8" else 2
    read_tokens = np.minimum(part["context"], part["window"]) if windowed else part["context"]
    read_bytes = part["sequences"] * read_tokens * 2 * part["kv_heads"] * part["head_dim"] * width
    seconds, part = from_memory(part, read_bytes, L2_BYTES[accelerator.name], *shape)
    call = decode_attention(
        part["sequences"],
        part["context"],
        heads=part["heads"],
        kv_heads=part["kv_heads"],
        head_dim=part["head_dim"],
        kv_bytes_per_element=width,
        accelerator=accelerator,
        window=part["window"] if windowed else None,
    )
    groups = WIDE_GROUP_KNOTS if engine == "trtllm" else GROUP_KNOTS
    splitting = engine == "trtllm" and accelerator.name not in BLACKWELL
    window_knots = SPLITTING_WINDOW_KNOTS if splitting else WINDOW_KNOTS
    return rows_of(
        (call.operation, accelerator.name, engine, "fp8" if form == "fp8" else "bf16"),
        call,
        seconds,
        serving(part["sequences"], part["context"], 32768),
        window_knots if windowed else (CONTEXT_KNOTS, KV_HEAD_KNOTS, groups, HEAD_DIM_KNOTS),
        base_at=lambda tokens, kv, group, head_dim, beyond=None: decode_attention(
            kv,
            tokens * (1 if beyond is None else beyond),
            heads=group,
            kv_heads=1,
            head_dim=head_dim,
            kv_bytes_per_element=width,
            accelerator=accelerator,
            window=None if beyond is None else tokens,
        ),
    )


# Prefill -------------------------------------------------------------------------------------------------------------


def prefill_tables(folder: Path) -> Iterator[Rows]:
    table = read(
        folder / "context_attention.parquet",
        system="system", engine="engine", source="kernel_source", form="attn_dtype", kv_form="kv_cache_dtype",
        prompts="batch_size", new_tokens="isl", heads="num_heads", kv_heads="num_key_value_heads",
        head_dim="head_dim", window="window_size", seconds="latency",
    )  # fmt: skip
    fp8_kv = np.where(table.pop("kv_form") == "fp8", "fp8kv", "bf16")
    table["form"] = np.where(table["form"] == "fp8", "fp8", fp8_kv)
    table["window"] = np.nan_to_num(table["window"]).astype(np.int64)
    table["windowed"] = np.where(table["window"] > 0, "window", "all")
    table["seconds"] = table["seconds"] / 1e3
    table = only(table, table["new_tokens"] > 1)
    accelerators = load_catalogue().accelerators
    found: dict[tuple[str, str, str], list[Rows]] = {}
    for (system, form, windowed, engine), part in split(table, "system", "form", "windowed", "engine"):
        rows = prefill_rows(part, accelerators[SYSTEMS[system]], engine, form, windowed=windowed == "window")
        found.setdefault((system, form, windowed), []).append(rows)
    for engines in found.values():
        yield from by_engine(engines)


def prefill_rows(part: Columns, accelerator: Accelerator, engine: str, form: str, *, windowed: bool) -> Rows:
    shape = ("prompts", "new_tokens", "heads", "kv_heads", "head_dim", "window")
    part = unique(without_fallbacks(part, *shape), *shape)
    call = prefill_attention(
        part["new_tokens"],
        0.0,
        prompts=part["prompts"],
        heads=part["heads"],
        kv_heads=part["kv_heads"],
        head_dim=part["head_dim"],
        kv_bytes_per_element=2,
        accelerator=accelerator,
        window=part["window"] if windowed else None,
    )
    return rows_of(
        (call.operation, accelerator.name, engine, form),
        call,
        part["seconds"],
        serving(part["prompts"], part["new_tokens"], 16384),
        PREFILL_WINDOW_KNOTS if windowed else (LENGTH_KNOTS, ROW_KNOTS, PREFILL_GROUP_KNOTS, HEAD_DIM_KNOTS),
        base_at=lambda twice_keys, products, group, head_dim: prefill_attention(
            twice_keys,
            0.0,
            prompts=products / (group * twice_keys),
            heads=group,
            kv_heads=1,
            head_dim=head_dim,
            kv_bytes_per_element=2,
            accelerator=accelerator,
        ),
        rising=(1,),  # not by keys: as many tokens in shorter prompts may take longer
    )


def tables(folder: Path) -> Iterator[Rows]:
    yield from decode_tables(folder)
    yield from prefill_tables(folder)


def surfaces(folder: Path) -> Iterator[tuple[Key, Surface]]:
    """Every surface of attention kernels that the tables in `folder` hold."""
    eight_bit: dict[Key, list[Surface]] = {}
    for rows in tables(folder):
        operation, accelerator, engine, form = rows.key
        surface = fit(rows)
        if engine == "sglang" and operation.startswith("prefill") and form != "bf16":
            eight_bit.setdefault((operation, accelerator, engine, ""), []).append(surface)
        else:
            yield rows.key, surface
    for (operation, accelerator, engine, _), found in eight_bit.items():
        # SGLang's default for an FP8 KV cache either multiplies in FP8 or not; the few rows of the other way are
        # fallbacks for single head sizes.
        usual = max(found, key=lambda s: s.points)
        for form in ("fp8", "fp8kv"):
            yield (operation, accelerator, engine, form), usual

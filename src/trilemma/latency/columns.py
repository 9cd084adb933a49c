"""Kernel times of a deployment by tokens, sequences and context, before an engine's constants; and the step table that
both make together.

Columns depend on the deployment and the typical lengths alone, so that they can be kept while constants are fitted or
loads are tried.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from trilemma.catalogue.efficiency import EngineEfficiency
from trilemma.latency.mixers import Decoding, Prefilling
from trilemma.latency.operations import FloatArray
from trilemma.latency.table import FRACTION_BITS, IntArray, StepTable
from trilemma.units import PS_PER_S

GRID_STEPS_PER_DOUBLING = 4


@lru_cache(maxsize=256)
def grid_to(largest: int) -> FloatArray:
    """Counts from 1 to `largest`, every one up to 16 and then a few per doubling; the one array of all who ask."""
    doublings = np.log2(max(largest, 2) / 16)
    tail = 16 * 2 ** np.linspace(0, max(doublings, 0), max(2, int(doublings * GRID_STEPS_PER_DOUBLING) + 1))
    points = np.concatenate([np.arange(1, 17), np.rint(tail)])
    grid = np.unique(points[points <= largest]).astype(np.float64)
    grid.flags.writeable = False
    return grid


@lru_cache(maxsize=16)
def _counts(largest: int) -> FloatArray:
    """Every count from 0 to `largest`; the one array of all who ask."""
    counts = np.arange(largest + 1, dtype=np.float64)
    counts.flags.writeable = False
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Kernel seconds of one rank's step, all (n,) over the grid they belong to.

    `by_tokens` maps "GEMMs", "experts", "collectives" and "elementwise" (one crossing of HBM by the hidden vectors) to
    seconds on the grid `tokens`; `prefilling` is on the same grid. `head_s`, `draft_s` (the prediction layers of
    multi-token prediction) and `decoding` are on the grid `sequences`. `drafts` tokens are verified beside every
    decode's own.
    """

    tokens: FloatArray
    by_tokens: Mapping[str, FloatArray]
    prefilling: Prefilling
    sequences: FloatArray
    head_s: FloatArray
    draft_s: FloatArray
    decoding: Decoding
    layers: int
    moe_layers: int
    drafts: int
    four_bit_experts: bool

    @property
    def window_tokens(self) -> int:
        """Tokens of context beyond which the capped layers' decode attention stops growing; 0 where none is capped.

        Where layers differ this is the cap whose work costs most when it is reached; the work under any other is taken
        to be at its cap in every step.
        """
        capped = self.decoding.capped_s
        return max(capped, key=lambda tokens: tokens * capped[tokens], default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Seconds of a step under an engine's constants: the terms of latency.table.StepTable before rounding."""

    token_s: FloatArray
    prefill_s: FloatArray
    decode_s: FloatArray
    sequence_s: FloatArray
    context_s: float
    window_s: float
    pair_s: float


def host_s(c: Columns, engine: EngineEfficiency) -> float:
    """What every step takes beside its kernels: scheduling, and in every layer the small kernels that no table has
    (norms, rotary embedding, cache writes; routing, in layers with experts)."""
    return engine.step_s + engine.layer_s * c.layers + engine.moe_layer_s * c.moe_layers


def factors(c: Columns, engine: EngineEfficiency) -> dict[str, float]:
    """By what an engine multiplies each of `by_tokens`."""
    return {
        "GEMMs": engine.gemm,
        "experts": engine.expert_4bit if c.four_bit_experts else engine.expert,
        "collectives": engine.collective,
        "elementwise": engine.elementwise_passes,
    }


def stretched_s(terms: Mapping[str, FloatArray], one: Mapping[str, FloatArray], engine: EngineEfficiency) -> FloatArray:
    """How much longer than kernels alone GEMMs and experts run among prefill tokens (no CUDA graph, activations that
    leave the cache): `terms` at the prefill tokens, `one` at a single token."""
    gemm_s: FloatArray = (engine.prefill - 1) * (terms["GEMMs"] - one["GEMMs"])
    return gemm_s + (engine.expert_prefill - 1) * (terms["experts"] - one["experts"])


def token_terms(c: Columns, engine: EngineEfficiency) -> dict[str, FloatArray]:
    """The terms that depend on a step's tokens alone, by name, on the grid of tokens."""
    kernels = {name: factor * c.by_tokens[name] for name, factor in factors(c, engine).items()}
    return kernels | {"host": np.full_like(c.tokens, host_s(c, engine))}


def prefill_terms(c: Columns, engine: EngineEfficiency, terms: Mapping[str, FloatArray]) -> FloatArray:
    """What a step with prefill tokens takes beyond `terms`: attention, and the rest running longer than its kernels."""
    stretch_s = stretched_s(terms, {name: seconds[:1] for name, seconds in terms.items()}, engine)
    total: FloatArray = engine.prefill_attention * c.prefilling.fixed_s + stretch_s + engine.prefill_layer_s * c.layers
    return total


def assemble(c: Columns, engine: EngineEfficiency) -> Parts:
    """Columns under an engine's constants, on their grids."""
    terms = token_terms(c, engine)
    token_s = sum(terms.values(), np.zeros_like(c.tokens))
    decode_s = engine.attention * c.decoding.fixed_s + c.draft_s
    for cap, slope in c.decoding.capped_s.items():
        if cap != c.window_tokens:
            decode_s = decode_s + engine.attention * slope * cap * c.sequences
    if c.drafts:  # a decode computes its drafts too: 1 + drafts tokens where the table counts one
        verified = np.interp(c.sequences * (1 + c.drafts), c.tokens, token_s)
        decode_s = decode_s + np.maximum(verified - np.interp(c.sequences, c.tokens, token_s), 0.0)
    return Parts(
        token_s=token_s,
        prefill_s=np.maximum(prefill_terms(c, engine, terms), 0.0),
        decode_s=decode_s,
        sequence_s=engine.gemm * c.head_s + engine.sequence_s * c.sequences,
        context_s=engine.attention * c.decoding.context_s,
        window_s=engine.attention * c.decoding.capped_s.get(c.window_tokens, 0.0),
        pair_s=engine.prefill_attention * c.prefilling.pair_s,
    )


def tabulate(
    c: Columns,
    engine: EngineEfficiency,
    *,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    stretch: float = 1.0,
    floor_s: float = 0.0,
) -> StepTable:
    """The integer tables of the simulator up to a scheduler's bounds, which lie on or below the ends of the grids;
    every time is `stretch` times as long. No step is shorter than `floor_s`."""
    parts = assemble(c, engine)

    def column(largest: int, grid: FloatArray, seconds: FloatArray) -> IntArray:
        every = np.interp(_counts(largest), grid, seconds * (stretch * PS_PER_S))
        every[0] = 0.0
        return np.rint(every, out=every).astype(np.int64)

    token_ps = column(max_num_batched_tokens, c.tokens, parts.token_s)
    return StepTable(
        token_ps=np.maximum(1, token_ps, out=token_ps),
        prefill_ps=column(max_num_batched_tokens, c.tokens, parts.prefill_s),
        decode_ps=column(max_num_seqs, c.sequences, parts.decode_s),
        sequence_ps=column(max_num_seqs, c.sequences, parts.sequence_s),
        context_ps=_whole_ps(stretch * parts.context_s),
        window_tokens=c.window_tokens if parts.window_s > 0 else 0,
        window_ps=_whole_ps(stretch * parts.window_s),
        pair_fp=round(stretch * parts.pair_s * PS_PER_S * 2**FRACTION_BITS),
        floor_ps=np.full(max_num_seqs + 1, round(floor_s * PS_PER_S), np.int64),
    )


def _whole_ps(seconds: float) -> int:
    """Seconds as whole picoseconds; work that takes any time takes one at least."""
    return max(1, round(seconds * PS_PER_S)) if seconds > 0 else 0

"""Base time of routed experts (one fused MoE kernel sequence) on one GPU, before what kernels measured make of it.

`tokens` enter the layer over all ranks of expert parallelism together (the measured tables count so: with 8 ranks a
call takes an eighth of the time for the same number). A GPU holds `experts_here` of `experts`, each cut to `inter`
columns by the experts' tensor parallelism, reads every expert that a token reaches once, and computes its share of the
tokens x top_k pairs. Permutation, activation, quantisation and the weighted sum are in the time; the router's GEMM,
shared experts and all-to-all are not.
"""

from dataclasses import dataclass

import numpy as np

from trilemma.catalogue.accelerator import Accelerator
from trilemma.latency.gemm import LEAST, form_of, roofline
from trilemma.latency.operations import Cost, FloatArray, touched_experts

LAUNCH_S = 10e-6  # five to seven kernels in a row: 13 to 30 us for the smallest layers measured
INTERMEDIATE_BYTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWork:
    """What routing leaves on one GPU: distinct experts reached and (token, expert) pairs, (n,) each."""

    touched: FloatArray
    pairs: FloatArray


def reached(tokens: FloatArray, experts: int, top_k: int, skew: float) -> FloatArray:
    """Expected distinct experts of `tokens` (n,) tokens when the i-th most popular is chosen in proportion to i^-skew.

    Even routing at skew 0. A token chooses an expert at most once, so popularities are capped at one per token.

    >>> reached(np.array([1.0, 16.0, 1e6]), 128, 8, 0.0).round(1).tolist()
    [8.0, 82.4, 128.0]
    >>> reached(np.array([1.0, 16.0]), 128, 8, 0.6).round(1).tolist()
    [8.0, 71.3]
    """
    if skew == 0:
        return touched_experts(tokens, experts, top_k)
    weight = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    chance = np.zeros(experts)
    capped = 0
    while capped < top_k:  # experts that every token chooses, then the rest by weight
        rest = (top_k - capped) * weight[capped:] / weight[capped:].sum()
        chance[:capped], chance[capped:] = 1.0, rest
        if rest[0] <= 1:
            break
        capped += int((rest > 1).sum())
    found: FloatArray = np.sum(1 - (1 - chance) ** tokens[..., None], axis=-1)
    return found


def expert_work(
    tokens: FloatArray, *, top_k: int, experts: int, experts_here: float, skew: float = 0.0, imbalance: float = 1.0
) -> ExpertWork:
    """Expected work of the GPU a step waits for.

    `skew` is that of `reached`; `imbalance` the pairs of the fullest rank over the mean of all ranks, 1 where experts
    are not spread over ranks.

    >>> work = expert_work(np.array([1.0, 64.0]), top_k=8, experts=128, experts_here=16)
    >>> work.touched.round(2).tolist(), work.pairs.tolist()
    ([1.0, 15.74], [1.0, 64.0])
    """
    tokens = np.asarray(tokens, np.float64)
    share = experts_here / experts
    return ExpertWork(touched=reached(tokens, experts, top_k, skew) * share, pairs=tokens * top_k * share * imbalance)


def expert_cost(
    work: ExpertWork,
    *,
    hidden: int,
    inter: FloatArray | float,
    accelerator: Accelerator,
    form: str,
    gated: bool = True,
) -> Cost:
    """Base time of one layer's routed experts and its parts; `inter` is per GPU. UnsupportedError as `form_of`."""
    row, peak = form_of(form, accelerator)
    matrices = 3.0 if gated else 2.0
    weights = matrices * hidden * inter  # of one expert
    moved = 2 * hidden * row.activation_bytes + (matrices - 1) * inter * INTERMEDIATE_BYTES  # of one pair
    memory_s = (work.touched * weights * row.weight_bytes + work.pairs * moved) / accelerator.hbm_bytes_per_s
    return roofline(memory_s, 2 * work.pairs * weights / peak, launch_s=LAUNCH_S)


def expert_base_s(
    tokens: FloatArray,
    *,
    hidden: int,
    inter: FloatArray | float,
    top_k: int,
    experts: int,
    experts_here: float,
    accelerator: Accelerator,
    form: str,
    gated: bool = True,
) -> FloatArray:
    """Seconds (n,) of `expert_cost` for evenly routed `tokens` (n,) over all ranks of expert parallelism.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> h200 = load_catalogue().accelerator("h200_sxm")
    >>> layer = {"hidden": 4096, "inter": 1536, "top_k": 8, "experts": 128, "experts_here": 128}
    >>> seconds = expert_base_s(np.array([1.0, 128.0]), **layer, accelerator=h200, form="bf16")
    >>> (seconds * 1e6).round().tolist()  # 8 experts of 38 MB, then all of them, at 4.8 TB/s
    [73.0, 1022.0]
    """
    work = expert_work(tokens, top_k=top_k, experts=experts, experts_here=experts_here)
    return expert_cost(work, hidden=hidden, inter=inter, accelerator=accelerator, form=form, gated=gated).seconds


def expert_features(
    work: ExpertWork, *, hidden: int, inter: FloatArray | float, experts_here: FloatArray | float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """log2 of (pairs per expert on the GPU, inter per GPU, experts on the GPU, hidden): the dimensions of the
    surfaces named "moe" (uneven load) and "moe_balanced"."""
    here = np.asarray(experts_here, np.float64)
    parts = (work.pairs / here, np.asarray(inter, np.float64), here, np.asarray(hidden, np.float64))
    load, inter, here, hidden_size = (np.log2(np.maximum(x, LEAST)) for x in parts)
    return load, inter, here, hidden_size

"""Terms of a forward pass that depend on its tokens alone: GEMMs, experts, collectives, elementwise work.

Every function takes tokens (n,) of one attention-DP rank and gives a Cost of shape (n,), before an engine's constants.
Kernels are measured ones (`latency.kernels`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trilemma.catalogue.model import Mlp
from trilemma.catalogue.precision import Role
from trilemma.deployment.matrix import ceil_div
from trilemma.deployment.spec import Deployment
from trilemma.deployment.tensors import mtp_block
from trilemma.deployment.weights import Matrix, Split
from trilemma.latency.experts import expert_cost, expert_features, expert_work
from trilemma.latency.formats import kernel_form
from trilemma.latency.gemm import gemm_cost, gemm_features
from trilemma.latency.kernels import Kernels
from trilemma.latency.links import all_gather, all_reduce, point_to_point, reduce_scatter
from trilemma.latency.operations import ACTIVATION_BYTES, Cost, FloatArray, nothing

# How unevenly tokens choose experts (latency.experts.reached): fits TPOT of measured runs of models left out best among
# 0, 0.5, 0.8 and 1.1; benchmarks' random tokens reach fewer experts than even routing would.
ROUTING_SKEW = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemms:
    """GEMMs of one number format on one GPU: n and k (kernels, 1), calls (kernels,) a pass, and over how many
    attention-DP ranks the tokens of each are summed (kernels, 1)."""

    form: str
    n: FloatArray
    k: FloatArray
    calls: FloatArray
    ranks: FloatArray


def gather(found: Iterable[Matrix], deployment: Deployment) -> tuple[Gemms, ...]:
    """The GEMMs of matrices by format; equal shapes are counted together."""
    shapes: dict[str, dict[tuple[int, int, int], float]] = {}
    for m in found:
        rows, cols, _ = m.shape_per_gpu(deployment.parallelism)
        form = kernel_form(deployment.precision, m.role, deployment.model, deployment.accelerator)
        ranks = deployment.parallelism.data if m.split is Split.STAGE else 1
        by_shape = shapes.setdefault(form, {})
        by_shape[cols, rows, ranks] = by_shape.get((cols, rows, ranks), 0.0) + m.layers
    return tuple(
        Gemms(
            form=form,
            n=np.array([[float(n)] for n, _, _ in by_shape]),
            k=np.array([[float(k)] for _, k, _ in by_shape]),
            calls=np.array(list(by_shape.values())),
            ranks=np.array([[float(ranks)] for _, _, ranks in by_shape]),
        )
        for form, by_shape in shapes.items()
    )


def gemms(found: Iterable[Gemms], tokens: FloatArray, kernels: Kernels) -> Cost:
    """Time of all of them."""
    total = nothing(tokens.size)
    for g in found:
        m = tokens * g.ranks
        base = gemm_cost(m, g.n, g.k, accelerator=kernels.accelerator, form=g.form)
        total = total + kernels.priced(base, "gemm", g.form, gemm_features(m, g.n, g.k)).total(g.calls)
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """One kind of MoE layer, `layers` of it."""

    mlp: Mlp
    layers: int


def expert_layers(deployment: Deployment, *, mtp: bool) -> tuple[Experts, ...]:
    """The model's MoE layers; with `mtp` those of its prediction layers instead."""
    model = deployment.model
    blocks = [mtp_block(model)] * model.mtp_layers if mtp else list(model.blocks)
    return tuple(Experts(mlp=b.mlp, layers=b.count) for b in blocks if b.mlp is not None and b.mlp.experts)


def experts(found: Iterable[Experts], tokens: FloatArray, deployment: Deployment, kernels: Kernels) -> Cost:
    """Routed experts: one fused kernel per layer, over the tokens of all attention-DP ranks and the experts here."""
    total = nothing(tokens.size)
    parallelism = deployment.parallelism
    groups = min(parallelism.expert, parallelism.stage_gpus)
    form = kernel_form(deployment.precision, Role.EXPERT, deployment.model, deployment.accelerator)
    everyone = tokens * parallelism.data
    for e in found:
        here = ceil_div(e.mlp.experts, groups)
        work = expert_work(
            everyone, top_k=e.mlp.experts_per_token, experts=e.mlp.experts, experts_here=here, skew=ROUTING_SKEW
        )
        hidden = e.mlp.latent_dim or deployment.model.hidden
        inter = ceil_div(e.mlp.expert_width, max(1, parallelism.stage_gpus // groups))
        base = expert_cost(
            work, hidden=hidden, inter=inter, accelerator=kernels.accelerator, form=form, gated=e.mlp.gated
        )
        features = expert_features(work, hidden=hidden, inter=inter, experts_here=here)
        total = total + kernels.priced(base, "moe", form, features).scaled(e.layers)
    return total


def elementwise(tokens: FloatArray, deployment: Deployment) -> Cost:
    """One crossing of HBM by every token's hidden vector in every layer, BF16: norms, rotary embedding, residuals,
    activations and conversions are multiples of it."""
    moved_bytes = tokens * deployment.model.hidden * ACTIVATION_BYTES * deployment.model.layers
    memory_s = moved_bytes / deployment.accelerator.hbm_bytes_per_s
    zero = np.zeros_like(memory_s)
    return Cost(seconds=memory_s, memory_s=memory_s, compute_s=zero, link_s=zero, fixed_s=zero)


def exchanges(tokens: FloatArray, deployment: Deployment, kernels: Kernels) -> Cost:
    """An all-reduce of the hidden vectors in BF16 after each mixer over TP and after each MLP over the stage.

    With attention DP the MLP's GPUs gather every rank's tokens and scatter their sums instead. Pipeline stages hand
    their micro-batch on.
    """
    model, parallelism, accelerator = deployment.model, deployment.parallelism, deployment.accelerator
    mixers = sum(b.count for b in model.blocks if b.attention is not None)
    mlps = sum(b.count for b in model.blocks if b.mlp is not None)
    message = tokens * model.hidden * ACTIVATION_BYTES
    total = nothing(tokens.size)
    if parallelism.tensor > 1:
        call = all_reduce(message, parallelism.tensor, accelerator=accelerator)
        reduced = kernels.priced(call.base, call.operation, "bf16", call.features)
        total = total + reduced.scaled(mixers if parallelism.data > 1 else mixers + mlps)
    if parallelism.data > 1:
        for exchange in (all_gather, reduce_scatter):
            call = exchange(message * parallelism.data, parallelism.stage_gpus, accelerator=accelerator)
            total = total + kernels.priced(call.base, call.operation, "bf16", call.features).scaled(mlps)
    if parallelism.pipeline > 1:
        total = total + point_to_point(message, parallelism, accelerator).scaled(parallelism.pipeline)
    return total

"""Every weight tensor of a model: the one oracle for parameters, weight bytes and GEMM shapes.

Latency prices these matrices, memory stores them, cost never sees another count.
"""

from collections.abc import Mapping
from functools import lru_cache

from trilemma.catalogue.model import Model
from trilemma.catalogue.precision import Precision, Role
from trilemma.deployment.matrix import Matrix, Split, SplitDim, ceil_div
from trilemma.deployment.spec import Parallelism
from trilemma.deployment.tensors import all_matrices

__all__ = [
    "Matrix",
    "Split",
    "SplitDim",
    "active_params",
    "matrices",
    "params_per_gpu",
    "stage_share",
    "total_params",
    "weight_bytes_per_gpu",
]


@lru_cache(maxsize=512)
def matrices(model: Model, *, mtp: bool = False) -> tuple[Matrix, ...]:
    """All weight tensors of `model`, block by block, then those outside the stack; with `mtp` the MTP layers too.

    Names: qkv, q_down, q_up, kv_down, kv_up, kv, attn_gate, o_down, o, index_q, index_k, index_weights, compress,
    linear_in, linear_decay_*, linear_gate_*, linear_conv, linear_out, ssm_in, ssm_conv, ssm_out, gate_up (up where
    ungated), down, router, expert_gate_up, expert_down, shared_gate_up, shared_down, shared_gate, latent_down,
    latent_up, norm, bias, embedding, lm_head, mtp_in, vision, extra. Tied embeddings are one tensor, "lm_head".
    """
    return all_matrices(model, mtp=mtp)


def total_params(model: Model, *, vision: bool = True, mtp: bool = False) -> int:
    """Parameters of the published checkpoint; without the vision tower if `vision` is False, with MTP if `mtp`."""
    return sum(m.params for m in matrices(model, mtp=mtp) if vision or m.role is not Role.VISION)


def active_params(model: Model, *, count_embedding: bool = True) -> int:
    """Parameters one text token uses: head counted, vision and MTP left out, the input embedding as asked.

    Publishers differ: DeepSeek's 37B counts embedding and head, OpenAI's 5.1B leaves the input embedding out. A tied
    embedding is the head, so it stays.
    """
    return sum(m.active_params for m in matrices(model) if count_embedding or m.name != "embedding")


def stage_share(model: Model, parallelism: Parallelism) -> float:
    """Share of the stack's layers on the fullest pipeline stage: ceil(layers / stages) / layers."""
    return ceil_div(model.layers, parallelism.pipeline) / model.layers


def params_per_gpu(matrix: Matrix, parallelism: Parallelism, *, share: float | None = None) -> float:
    """Parameters of `matrix` on one GPU of a stage holding `share` of the layers (default 1 / stages).

    Exact fractions: times the GPUs of the replica it is the tensor's parameters wherever nothing is copied.
    """
    ways = matrix.ways(parallelism)
    capped = matrix.capped_cols / min(ways, matrix.capped_ways or ways)
    cols = (matrix.cols - matrix.capped_cols) / ways + capped
    here = (1 / parallelism.pipeline if share is None else share) if matrix.in_block is not None else 1.0
    return matrix.rows * cols * matrix.copies * matrix.layers * here


@lru_cache(maxsize=512)
def _fullest_gpu(model: Model, parallelism: Parallelism, *, mtp: bool) -> tuple[tuple[Role, float], ...]:
    """(role, parameters) of each matrix on the fullest GPU, in whatever precision."""
    share = stage_share(model, parallelism)
    return tuple((m.role, params_per_gpu(m, parallelism, share=share)) for m in matrices(model, mtp=mtp))


def weight_bytes_per_gpu(
    model: Model, precision: Precision, parallelism: Parallelism, *, mtp: bool = False
) -> Mapping[str, float]:
    """Weight bytes on the fullest GPU of a replica, by role ("attention", "expert", "head", ...).

    The fullest pipeline stage holds ceil(layers / stages) layers; the embedding lives on the first stage and the head
    on the last, so with several stages only the heavier of the two counts. Scales are inside bits_per_weight.
    """
    terms: dict[str, float] = {}
    for role, params in _fullest_gpu(model, parallelism, mtp=mtp):
        terms[role.value] = terms.get(role.value, 0.0) + params * precision.bytes_per_weight(role)
    if parallelism.pipeline > 1 and Role.EMBEDDING.value in terms:
        lighter = min((Role.EMBEDDING.value, Role.HEAD.value), key=lambda role: terms[role])
        del terms[lighter]
    return terms

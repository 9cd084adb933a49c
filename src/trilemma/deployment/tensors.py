"""The tensors of one block, kind by kind, named and shaped as engines lay them out."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from trilemma.catalogue.model import Attention, AttentionKind, Block, Mlp, Model
from trilemma.catalogue.precision import Role
from trilemma.deployment.matrix import Matrix, Split, SplitDim

_tensor = partial(Matrix, role=Role.ATTENTION, split=Split.TENSOR, layers=1)
_copied = partial(Matrix, role=Role.ATTENTION, split=Split.REPLICATED, layers=1)


def all_matrices(model: Model, *, mtp: bool) -> tuple[Matrix, ...]:
    """See `weights.matrices`."""
    out: list[Matrix] = []
    for index, block in enumerate(model.blocks):
        out += [replace(m, layers=block.count, in_block=index) for m in _block(block, model.hidden)]
    out += _outside(model)
    if mtp and model.mtp_layers:
        one = _mtp_layer(model)
        out += [replace(m, layers=model.mtp_layers, is_mtp=True) for m in one]
    return tuple(out)


def mtp_block(model: Model) -> Block:
    """What one multi-token prediction layer is made of: the stack's last softmax attention and its last MLP.

    DeepSeek-V3 (arXiv 2412.19437, section 2.2): one more layer of the model behind a projection of two hidden states;
    the hybrids say the same in their MTP patterns ("attention", "moe").
    """
    softmax = (AttentionKind.GQA, AttentionKind.MLA)
    mixers = [b.attention for b in model.blocks if b.attention is not None and b.attention.kind in softmax]
    mlps = [b.mlp for b in model.blocks if b.mlp is not None]
    return Block(count=1, attention=mixers[-1] if mixers else None, mlp=mlps[-1] if mlps else None)


def _mtp_layer(model: Model) -> Iterator[Matrix]:
    yield _copied(name="mtp_in", rows=2 * model.hidden, cols=model.hidden)
    yield from _block(mtp_block(model), model.hidden)


def _outside(model: Model) -> Iterator[Matrix]:
    vocab = partial(Matrix, split=Split.TENSOR, layers=1)
    if not model.tied_embeddings:
        yield vocab(
            name="embedding",
            role=Role.EMBEDDING,
            rows=model.vocab,
            cols=model.hidden,
            split_dim=SplitDim.ROWS,
            is_gemm=False,
        )
    yield vocab(name="lm_head", role=Role.HEAD, rows=model.hidden, cols=model.vocab)
    yield _copied(name="norm", role=Role.NORM, rows=1, cols=model.hidden, is_gemm=False)
    if model.extra_params:
        yield _copied(name="extra", role=Role.NORM, rows=1, cols=model.extra_params, is_gemm=False)
    if model.vision_params:
        # vLLM splits the tower's layers over TP by default (--mm-encoder-tp-mode weights); no text token uses it.
        yield vocab(name="vision", role=Role.VISION, rows=1, cols=model.vision_params, used=0, is_gemm=False)


def _block(block: Block, hidden: int) -> Iterator[Matrix]:
    norm = 0
    if block.attention is not None:
        yield from _MIXERS[block.attention.kind](block.attention, hidden)
        norm += hidden + block.attention.q_lora_rank + block.attention.kv_lora_rank
    if block.mlp is not None:
        yield from _mlp(block.mlp, hidden)
        norm += hidden
    if norm:
        yield _copied(name="norm", role=Role.NORM, rows=1, cols=norm, is_gemm=False)


def _gqa(a: Attention, hidden: int) -> Iterator[Matrix]:
    """Column-parallel qkv and row-parallel o; with `q_lora_rank` the low-rank queries and output of DeepSeek-V4."""
    queries = a.heads * a.head_dim * (2 if a.output_gate else 1)
    kv = 0 if a.shares_kv else a.kv_heads * (a.head_dim + (0 if a.v_from_k else a.v_head_dim))
    if a.q_lora_rank:
        yield _copied(name="q_down", rows=hidden, cols=a.q_lora_rank)
        yield _tensor(name="q_up", rows=a.q_lora_rank, cols=queries)
        yield _tensor(name="kv", rows=hidden, cols=kv, split_cap=a.kv_heads)
    else:
        yield _tensor(name="qkv", rows=hidden, cols=queries + kv, capped_cols=kv, capped_ways=a.kv_heads)
    if a.bias:
        bias = partial(_tensor, name="bias", rows=1, is_gemm=False)
        yield bias(cols=queries + kv, capped_cols=kv, capped_ways=a.kv_heads)
    out = a.heads * a.v_head_dim
    if a.o_lora_rank:
        groups = a.o_groups or 1
        # Block-diagonal: each group of heads has its own (out / groups, rank) matrix; the groups spread over TP.
        yield _tensor(name="o_down", rows=out // groups, cols=groups * a.o_lora_rank, split_cap=groups)
        yield _tensor(name="o", rows=groups * a.o_lora_rank, cols=hidden, split_dim=SplitDim.ROWS)
    else:
        yield _tensor(name="o", rows=out, cols=hidden, split_dim=SplitDim.ROWS)
    yield from _indexer(a, hidden)
    yield from _compressor(a, hidden)


def _mla(a: Attention, hidden: int) -> Iterator[Matrix]:
    """Down-projections on every GPU, up-projections split by head (vLLM's MultiHeadLatentAttention)."""
    queries = a.heads * (a.nope_head_dim + a.rope_head_dim)
    if a.q_lora_rank:
        yield _copied(name="q_down", rows=hidden, cols=a.q_lora_rank)
        yield _tensor(name="q_up", rows=a.q_lora_rank, cols=queries)
    else:
        yield _tensor(name="q_up", rows=hidden, cols=queries)
    yield _copied(name="kv_down", rows=hidden, cols=a.kv_lora_rank + a.rope_head_dim)
    yield _tensor(name="kv_up", rows=a.kv_lora_rank, cols=a.heads * (a.nope_head_dim + a.v_head_dim))
    if a.output_gate:
        yield _tensor(name="attn_gate", rows=hidden, cols=a.heads * a.v_head_dim)
    yield _tensor(name="o", rows=a.heads * a.v_head_dim, cols=hidden, split_dim=SplitDim.ROWS)
    yield from _indexer(a, hidden)


def _indexer(a: Attention, hidden: int) -> Iterator[Matrix]:
    """The sparse-attention indexer, whole on every GPU as in vLLM: each needs the same choice of tokens."""
    if not a.index_heads:
        return
    yield _copied(name="index_q", rows=a.q_lora_rank or hidden, cols=a.index_heads * a.index_head_dim)
    if a.kv_compress_ratio == 1:
        yield _copied(name="index_k", rows=hidden, cols=a.index_head_dim)
    if a.q_lora_rank:
        yield _copied(name="index_weights", rows=hidden, cols=a.index_heads)


def compressor_width(a: Attention) -> int:
    """Windows a pooled entry of a compressed KV mixes: 2 (overlapping) where an indexer reads them, else 1."""
    return 2 if a.index_heads else 1


def _compressor(a: Attention, hidden: int) -> Iterator[Matrix]:
    """DeepSeek-V4's pooling of r tokens into one entry: a value and a gate projection, for the indexer's keys too."""
    if a.kv_compress_ratio > 1:
        width = compressor_width(a)
        pooled = a.head_dim + (a.index_head_dim if a.index_heads else 0)
        yield _copied(name="compress", rows=hidden, cols=2 * width * pooled)
        yield _copied(name="bias", rows=a.kv_compress_ratio, cols=width * pooled, is_gemm=False)


def _linear(a: Attention, hidden: int) -> Iterator[Matrix]:
    """Gated delta rule: q, k, v (and a full-rank output gate), per-head write strength, decay, short convolution."""
    keys, values = a.kv_heads * a.head_dim, a.heads * a.v_head_dim
    gate = values if a.output_gate and not a.gate_rank else 0
    heads = a.heads * (1 if a.decay_rank else 2)  # beta, and a decay per head unless it is per channel
    yield _tensor(name="linear_in", rows=hidden, cols=2 * keys + values + gate + heads)
    if a.decay_rank:
        yield _copied(name="linear_decay_down", rows=hidden, cols=a.decay_rank)
        yield _tensor(name="linear_decay_up", rows=a.decay_rank, cols=a.heads * a.head_dim)
    if a.output_gate and a.gate_rank:
        yield _copied(name="linear_gate_down", rows=hidden, cols=a.gate_rank)
        yield _tensor(name="linear_gate_up", rows=a.gate_rank, cols=values)
    yield _tensor(name="linear_conv", rows=a.conv_kernel, cols=2 * keys + values, is_gemm=False)
    yield _tensor(name="linear_out", rows=values, cols=hidden, split_dim=SplitDim.ROWS)


def _ssm(a: Attention, hidden: int) -> Iterator[Matrix]:
    """Mamba-2 (arXiv 2405.21060): z, x, B, C and dt out of one projection; B and C are shared by a group of heads."""
    inner, shared = a.heads * a.head_dim, 2 * a.groups * a.state_dim
    grouped = partial(_tensor, capped_cols=shared, capped_ways=a.groups)
    yield grouped(name="ssm_in", rows=hidden, cols=2 * inner + a.heads + shared)
    yield grouped(name="ssm_conv", rows=a.conv_kernel + 1, cols=inner + shared, is_gemm=False)
    yield _tensor(name="ssm_out", rows=inner, cols=hidden, split_dim=SplitDim.ROWS)


def _mlp(mlp: Mlp, hidden: int) -> Iterator[Matrix]:
    first, sides = ("gate_up", 2) if mlp.gated else ("up", 1)
    for width, prefix, role in ((mlp.width, "", Role.MLP), (mlp.shared_width, "shared_", Role.SHARED_EXPERT)):
        if width:
            always = partial(Matrix, role=role, split=Split.STAGE, layers=1)
            yield always(name=prefix + first, rows=hidden, cols=sides * width)
            yield always(name=f"{prefix}down", rows=width, cols=hidden, split_dim=SplitDim.ROWS)
    if mlp.shared_gate:
        yield _copied(name="shared_gate", role=Role.ROUTER, rows=hidden, cols=1)
    if not mlp.experts:
        return
    yield _copied(name="router", role=Role.ROUTER, rows=hidden, cols=mlp.experts)
    inside = mlp.latent_dim or hidden
    if mlp.latent_dim:
        # Always active and kept beside the shared experts; replicated in vLLM (the routed experts' input is one).
        yield _copied(name="latent_down", role=Role.SHARED_EXPERT, rows=hidden, cols=inside)
        yield _copied(name="latent_up", role=Role.SHARED_EXPERT, rows=inside, cols=hidden)
    routed = partial(
        Matrix, role=Role.EXPERT, split=Split.EXPERT, layers=1, copies=mlp.experts, used=mlp.experts_per_token
    )
    yield routed(name=f"expert_{first}", rows=inside, cols=sides * mlp.expert_width)
    yield routed(name="expert_down", rows=mlp.expert_width, cols=inside, split_dim=SplitDim.ROWS)
    if mlp.bias:
        yield routed(name="bias", rows=1, cols=sides * mlp.expert_width + inside, is_gemm=False)


_MIXERS = {
    AttentionKind.GQA: _gqa,
    AttentionKind.MLA: _mla,
    AttentionKind.LINEAR: _linear,
    AttentionKind.SSM: _ssm,
}

"""A model's architecture: what decides its weights, its KV cache and its operations, and nothing else.

A model is a stack of `Block`s (attention + MLP, with a repeat count). Parameters and bytes are computed from it in
`trilemma.deployment.weights`, the one place that knows.
"""

from dataclasses import dataclass
from enum import StrEnum


class AttentionKind(StrEnum):
    """What mixes tokens in a layer; decides KV bytes and attention time."""

    GQA = "gqa"  # multi-head, grouped or multi-query attention with a K and a V per KV head
    MLA = "mla"  # one compressed latent plus a rotary key per token, shared by all heads
    LINEAR = "linear"  # gated-delta and other linear attention: a fixed state per sequence
    SSM = "ssm"  # Mamba-2: a fixed state per sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One token mixer. Fields a kind does not use stay 0 (or None).

    GQA uses heads, kv_heads, head_dim, v_head_dim; MLA uses heads, q_lora_rank (0: full q projection), kv_lora_rank,
    rope_head_dim, nope_head_dim, v_head_dim; LINEAR uses kv_heads as key heads, heads as value heads, head_dim as
    key dim, v_head_dim as value dim, conv_kernel; SSM uses heads, head_dim, state_dim, groups, conv_kernel.
    `window_tokens` caps the KV a layer keeps and reads (sliding window or chunked attention; None: unbounded).
    `index_*` describe DeepSeek sparse attention: an indexer with its own per-token key of `index_head_dim`, stored in
    `index_key_bytes`, and the `index_topk` tokens attended to; a layer that reuses another layer's choice has
    `index_topk` and no `index_heads`. `kv_compress_ratio` r > 1: the layer stores one entry per r tokens (besides its
    window). `kv_entry_dims` overrides the stored elements per token per layer where a kind's formula does not apply
    (0: use the formula); such an entry is whole on every GPU of the tensor-parallel group. `shares_kv`: reads an
    earlier layer's KV, stores none and projects none. `v_from_k`: values come out of the key projection.

    GQA with `q_lora_rank` projects its queries in two steps, with `o_lora_rank` its output too, in `o_groups` groups
    (DeepSeek-V4). LINEAR: `decay_rank` > 0 is the inner width of a decay per key channel (0: one decay per head),
    `gate_rank` that of the output gate (0: one full matrix). `state_bytes_per_element` is the width of the recurrent
    state (4: float32), whatever the KV cache's.
    """

    kind: AttentionKind
    heads: int
    kv_heads: int = 0
    head_dim: int = 0
    v_head_dim: int = 0
    window_tokens: int | None = None
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    rope_head_dim: int = 0
    nope_head_dim: int = 0
    o_lora_rank: int = 0
    o_groups: int = 0
    index_heads: int = 0
    index_head_dim: int = 0
    index_topk: int = 0
    conv_kernel: int = 0
    state_dim: int = 0
    groups: int = 0
    output_gate: bool = False
    bias: bool = False
    shares_kv: bool = False
    kv_compress_ratio: int = 1
    kv_entry_dims: int = 0
    index_key_bytes: int = 0
    v_from_k: bool = False
    decay_rank: int = 0
    gate_rank: int = 0
    state_bytes_per_element: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """One feed-forward part: dense (`width` > 0), MoE (`experts` > 0), or both side by side.

    `gated`: three matrices (gate, up, down) instead of two. `width` is the dense intermediate size, `shared_width`
    the summed intermediate size of always-active shared experts, `expert_width` that of one routed expert,
    `latent_dim` > 0 the width routed experts work in instead of the hidden size (with a projection down and up).
    """

    width: int = 0
    gated: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0
    latent_dim: int = 0
    shared_gate: bool = False
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """`count` equal layers of a mixer and an MLP; either may be absent (hybrid stacks alternate them)."""

    count: int
    attention: Attention | None = None
    mlp: Mlp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as served: the text decoder with its native weight format.

    Equal layers may be gathered in one block: their order in the stack is not kept. `precision` names the catalogue
    precision of the published checkpoint (usually "bf16"). `mtp_layers` multi-token prediction layers are left out of
    published totals and of memory unless speculative decoding is on. `vision_params` are resident weights outside the
    decoder (vision tower, projector), `extra_params` small ones inside it that belong to no block's mixer or MLP
    (hyper-connections, per-layer embeddings). `reference` says where the architecture was read, `note` what the
    reader had to assume ("": nothing).
    """

    name: str
    hidden: int
    vocab: int
    blocks: tuple[Block, ...]
    tied_embeddings: bool = False
    precision: str = "bf16"
    max_context_tokens: int = 0
    mtp_layers: int = 0
    vision_params: int = 0
    extra_params: int = 0
    reference: str = ""
    note: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """Layers in the stack, MTP not counted."""
        return sum(b.count for b in self.blocks)

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes tokens to experts."""
        return any(b.mlp is not None and b.mlp.experts > 0 for b in self.blocks)

"""The layers of a config.json as (mixer, MLP) pairs in order, for Llama-like, mixture-of-experts and MLA models."""

from collections.abc import Sequence
from dataclasses import replace

from trilemma.catalogue.config_keys import Keys
from trilemma.catalogue.model import Attention, AttentionKind, Mlp
from trilemma.errors import InputError, UnsupportedError

Layer = tuple[Attention | None, Mlp | None]

EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
TOP_K_KEYS = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k", "top_k_experts")

# intermediate_size is the width of one expert in these, not of a dense MLP.
_EXPERT_WIDTH_IS_INTERMEDIATE = {"mixtral", "minimax_m2", "minimax_m3", "gpt_oss", "llama4_text", "llama4", "phimoe"}
_UNGATED = {"starcoder2", "nemotron", "phi", "gpt_neox"}
_QKV_BIAS_BY_DEFAULT = {"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen2_vl_text", "qwen2_5_vl_text"}
# Window pattern where the file gives only a window: every n-th layer is full (transformers' configuration classes).
_FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}


def plain_layers(keys: Keys, model_type: str) -> list[Layer]:
    """Llama-like layers: GQA with or without windows, dense or mixture-of-experts MLPs."""
    count = keys.layers()
    base = gqa(keys, model_type)
    mixers = [replace(base, window_tokens=window) for window in windows(keys, model_type, count)]
    return list(zip(mixers, mlps(keys, model_type, count), strict=True))


def mla_layers(keys: Keys, model_type: str) -> list[Layer]:
    """DeepSeek-V2/V3 and relatives: MLA, with a sparse-attention indexer where the file has index_topk."""
    count = keys.layers()
    plain = mla(keys)
    if not keys.has("index_topk"):
        mixers = [plain] * count
    else:
        dim, topk = keys.count("index_head_dim"), keys.count("index_topk")
        indexed = replace(
            plain,
            index_heads=keys.count("index_n_heads"),
            index_head_dim=dim,
            index_topk=topk,
            index_key_bytes=fp8_key_bytes(dim),
        )
        kinds = keys.items("indexer_types", length=count) or ["full"] * count
        mixers = [indexed if kind == "full" else replace(plain, index_topk=topk) for kind in kinds]
    return list(zip(mixers, mlps(keys, model_type, count), strict=True))


def fp8_key_bytes(dim: int) -> int:
    """Bytes of one indexer key: FP8 with a float32 scale per 128 elements (vLLM, DeepseekV32IndexerCache).

    >>> fp8_key_bytes(128)
    132
    """
    return dim + 4 * -(-dim // 128)


def gqa(keys: Keys, model_type: str = "") -> Attention:
    """Multi-head, grouped or multi-query attention out of the usual keys."""
    heads = keys.count("num_attention_heads")
    head_dim = keys.count("head_dim", "attention_head_dim", default=keys.count("hidden_size") // heads)
    kv_heads = keys.count("num_key_value_heads", default=heads)
    if heads % kv_heads:
        place = f"{keys.where}: num_key_value_heads"
        raise InputError(place, expected=f"a divisor of the {heads} attention heads", found=str(kv_heads))
    return Attention(
        kind=AttentionKind.GQA,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=keys.count("v_head_dim", default=head_dim),
        output_gate=keys.flag("attn_output_gate") or keys.flag("attention_output_gate"),
        bias=keys.flag("attention_bias") or keys.flag("qkv_bias") or model_type in _QKV_BIAS_BY_DEFAULT,
    )


def mla(keys: Keys) -> Attention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""
    return Attention(
        kind=AttentionKind.MLA,
        heads=keys.count("num_attention_heads"),
        q_lora_rank=keys.whole("q_lora_rank"),
        kv_lora_rank=keys.count("kv_lora_rank"),
        rope_head_dim=keys.count("qk_rope_head_dim"),
        nope_head_dim=keys.count("qk_nope_head_dim"),
        v_head_dim=keys.count("v_head_dim"),
        output_gate=keys.flag("mla_use_output_gate"),
    )


def windows(keys: Keys, model_type: str, count: int) -> Sequence[int | None]:
    """The attention window of each layer in tokens; None where it is unbounded."""
    kinds = keys.items("layer_types", length=count)
    if kinds is not None:
        return [_window(str(kind), keys) for kind in kinds]
    if keys.has("attention_chunk_size") and model_type.startswith("llama4"):
        # Every fourth layer has no rotary embedding and attends to everything (Llama4TextConfig).
        rope = keys.items("no_rope_layers", length=count) or [(i + 1) % 4 for i in range(count)]
        chunk = keys.count("attention_chunk_size")
        return [chunk if chunked else None for chunked in rope]
    if not keys.has("sliding_window") or not keys.flag("use_sliding_window", default=True):
        return [None] * count
    window = keys.count("sliding_window")
    if window >= keys.whole("max_position_embeddings", default=2 * window):
        return [None] * count
    every = keys.whole("sliding_window_pattern", default=_FULL_EVERY.get(model_type, 0))
    if every > 1:
        return [window if (i + 1) % every else None for i in range(count)]
    first = keys.whole("max_window_layers") if model_type.startswith("qwen") else 0
    return [window if i >= first else None for i in range(count)]


def _window(kind: str, keys: Keys) -> int | None:
    if kind == "sliding_attention":
        return keys.count("sliding_window", "sliding_window_size")
    if kind == "chunked_attention":
        return keys.count("attention_chunk_size")
    if kind in {"full_attention", "attention", "global_attention", "linear_attention", "deepseek_sparse_attention"}:
        return None
    raise UnsupportedError(f"{keys.where}: layer_types: {kind!r} is a kind of layer this version does not know")


def mlps(keys: Keys, model_type: str, count: int) -> list[Mlp]:
    """The MLP of each layer: dense, or routed experts with their shared ones."""
    if not any(keys.has(name) and keys.whole(name) for name in EXPERT_KEYS):
        return [_dense(keys, model_type)] * count
    sparse = _sparse_layers(keys, count)
    dense = None if all(sparse) else _dense(keys, model_type)
    routed = moe(keys, model_type)
    return [routed if is_sparse or dense is None else dense for is_sparse in sparse]


def _dense(keys: Keys, model_type: str) -> Mlp:
    names = ("dense_intermediate_size", "intermediate_size_mlp", "intermediate_size", "ffn_hidden_size")
    return Mlp(width=keys.count(*names), gated=model_type not in _UNGATED, bias=keys.flag("mlp_bias"))


def moe(keys: Keys, model_type: str) -> Mlp:
    """Routed experts, and the shared ones that every token uses, of one layer."""
    if model_type in _EXPERT_WIDTH_IS_INTERMEDIATE:
        width = keys.count("moe_intermediate_size", "intermediate_size")
    else:
        width = keys.count("moe_intermediate_size", "expert_intermediate_size", "ffn_dim")
    number = keys.whole("n_shared_experts", "num_shared_experts", default=1)
    names = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "share_expert_dim")
    if any(keys.has(name) for name in names):
        shared = keys.whole(*names)
    elif keys.has("shared_intermediate_size"):
        shared = keys.whole("shared_intermediate_size") * number
    elif keys.has("n_shared_experts") or keys.has("num_shared_experts"):
        shared = width * number
    else:
        shared = width if model_type.startswith("llama4") else 0
    experts, per_token = keys.count(*EXPERT_KEYS), keys.count(*TOP_K_KEYS)
    if per_token > experts:
        raise InputError(f"{keys.where}: {TOP_K_KEYS[0]}", expected=f"at most {experts}", found=str(per_token))
    return Mlp(
        experts=experts,
        experts_per_token=per_token,
        expert_width=width,
        shared_width=shared,
        latent_dim=keys.whole("routed_expert_hidden_size", "moe_latent_size"),
        shared_gate=bool(shared) and model_type.startswith("qwen"),
        bias=model_type == "gpt_oss",
    )


def _sparse_layers(keys: Keys, count: int) -> list[bool]:
    kinds = keys.items("mlp_layer_types", length=count)
    if kinds is not None:
        return [kind == "sparse" for kind in kinds]
    listed = keys.items("moe_layer_freq", length=count)
    if listed is not None:
        return [bool(flag) for flag in listed]
    chosen = keys.items("moe_layers")
    if chosen is not None:
        return [i in chosen for i in range(count)]
    step = keys.count("interleave_moe_layer_step", "decoder_sparse_step", default=1)
    dense = keys.items("mlp_only_layers") or []
    first, every = keys.whole("first_k_dense_replace"), keys.count("moe_layer_freq", default=1)
    return [(i + 1) % step == 0 and i not in dense and i >= first and i % every == 0 for i in range(count)]

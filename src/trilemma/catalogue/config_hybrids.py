"""Layers of the architectures with a shape of their own: hybrids, windowed pairs, searched and compressed stacks."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from trilemma.catalogue.config_keys import Keys
from trilemma.catalogue.config_layers import Layer, fp8_key_bytes, gqa, mla, mlps, moe, plain_layers, windows
from trilemma.catalogue.model import Attention, AttentionKind, Mlp
from trilemma.errors import InputError, UnsupportedError


def qwen_next_layers(keys: Keys, model_type: str) -> list[Layer]:
    """Qwen3-Next and Qwen3.5: gated delta rule with a gated softmax-attention layer in every few."""
    count = keys.layers()
    interval = keys.count("full_attention_interval", default=4)
    kinds = keys.items("layer_types", length=count) or [
        "linear_attention" if (i + 1) % interval else "full_attention" for i in range(count)
    ]
    full = replace(gqa(keys), output_gate=keys.flag("attn_output_gate", default=True))
    linear = Attention(
        kind=AttentionKind.LINEAR,
        heads=keys.count("linear_num_value_heads"),
        kv_heads=keys.count("linear_num_key_heads"),
        head_dim=keys.count("linear_key_head_dim"),
        v_head_dim=keys.count("linear_value_head_dim"),
        conv_kernel=keys.count("linear_conv_kernel_dim"),
        output_gate=True,
        state_bytes_per_element=_state_bytes(keys, "mamba_ssm_dtype"),
    )
    mixers = [linear if kind == "linear_attention" else full for kind in kinds]
    return list(zip(mixers, mlps(keys, model_type, count), strict=True))


def _state_bytes(keys: Keys, name: str) -> int:
    """The recurrent state's width: 4 where the file asks for float32, else the model's own 16 bits (vLLM's rule)."""
    return 4 if keys.text(name) == "float32" else 2


def kimi_linear_layers(keys: Keys, model_type: str) -> list[Layer]:
    """Kimi Linear and K3: Kimi delta attention with an MLA layer in every few (arXiv 2510.26692)."""
    count = keys.layers()
    inner = keys.inner("linear_attn_config")
    if inner is None:
        raise InputError(f"{keys.where}: linear_attn_config", expected="an object", found="no such key")
    heads, dim = inner.count("num_heads"), inner.count("head_dim")
    linear = Attention(
        kind=AttentionKind.LINEAR,
        heads=heads,
        kv_heads=heads,
        head_dim=dim,
        v_head_dim=dim,
        conv_kernel=inner.count("short_conv_kernel_size"),
        output_gate=True,
        decay_rank=dim,
        gate_rank=0 if inner.flag("use_full_rank_gate") else dim,
    )
    full = mla(keys)
    linear_layers = inner.items("kda_layers") or []  # counted from 1
    mixers = [linear if i + 1 in linear_layers else full for i in range(count)]
    return list(zip(mixers, mlps(keys, model_type, count), strict=True))


def nemotron_h_layers(keys: Keys, model_type: str) -> list[Layer]:
    """Nemotron-H and Nemotron 3: Mamba-2, attention and MLP or expert layers, one part a layer."""
    pattern = keys.text("hybrid_override_pattern")
    names = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    kinds = keys.items("layers_block_type") or [names.get(letter, letter) for letter in pattern]
    if not kinds:
        raise InputError(f"{keys.where}: hybrid_override_pattern", expected="a pattern of layers", found="no such key")
    ssm = Attention(
        kind=AttentionKind.SSM,
        heads=keys.count("mamba_num_heads"),
        head_dim=keys.count("mamba_head_dim"),
        state_dim=keys.count("ssm_state_size"),
        groups=keys.count("n_groups"),
        conv_kernel=keys.count("conv_kernel"),
        state_bytes_per_element=_state_bytes(keys, "mamba_ssm_cache_dtype"),
    )
    parts: dict[str, Layer] = {"mamba": (ssm, None), "attention": (gqa(keys), None)}
    if "mlp" in kinds:
        parts["mlp"] = (None, Mlp(width=keys.count("intermediate_size"), gated=False))
    if "moe" in kinds:
        parts["moe"] = (None, replace(moe(keys, model_type), gated=False))
    unknown = sorted({str(kind) for kind in kinds} - parts.keys())
    if unknown:
        raise UnsupportedError(f"{keys.where}: layers_block_type: {unknown} are kinds of layers not known here")
    return [parts[kind] for kind in kinds]


def nemotron_nas_layers(keys: Keys, _model_type: str) -> list[Layer]:
    """Llama-Nemotron out of neural architecture search: each layer with its own attention and MLP, or without."""
    count, hidden, heads = keys.layers(), keys.count("hidden_size"), keys.count("num_attention_heads")
    blocks = keys.items("block_configs", length=count)
    if blocks is None:
        raise InputError(f"{keys.where}: block_configs", expected="a list of layers", found="no such key")
    out: list[Layer] = []
    for i, raw in enumerate(blocks):
        place = f"{keys.where}: block_configs[{i}]"
        block = Keys(raw if isinstance(raw, Mapping) else {}, place)
        attention, ffn = block.inner("attention"), block.inner("ffn")
        if attention is None or ffn is None:
            raise InputError(place, expected="objects attention and ffn", found=str(raw)[:60])
        for part in (attention, ffn):
            if part.flag("replace_with_linear"):
                raise UnsupportedError(f"{part.where}: replace_with_linear cannot be read")
        mixer = mlp = None
        if not attention.flag("no_op"):
            dim = keys.count("head_dim", default=hidden // heads)
            group = attention.count("n_heads_in_group")
            if heads % group:
                place = f"{attention.where}: n_heads_in_group"
                raise InputError(place, expected=f"a divisor of the {heads} attention heads", found=str(group))
            window = attention.whole("window_length") or None
            mixer = Attention(
                kind=AttentionKind.GQA,
                heads=heads,
                kv_heads=heads // group,
                head_dim=dim,
                v_head_dim=dim,
                window_tokens=window,
            )
        if not ffn.flag("no_op"):
            # DeciLM's own rule: two thirds of the multiple of the hidden size, up to the next multiple of 256.
            exact = int(2 * _multiple(ffn) * hidden / 3)
            mlp = Mlp(width=-(-exact // 256) * 256)
        out.append((mixer, mlp))
    return out


def _multiple(ffn: Keys) -> float:
    value = ffn.values.get("ffn_mult")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1000:
        raise InputError(f"{ffn.where}: ffn_mult", expected="a positive number", found=repr(value))
    return float(value)


def mimo_v2_layers(keys: Keys, model_type: str) -> list[Layer]:
    """MiMo-V2: windowed layers with their own KV heads beside full ones."""
    count = keys.layers()
    pattern = keys.items("hybrid_layer_pattern", length=count) or [0] * count
    full = replace(gqa(keys), window_tokens=None)
    windowed = replace(
        full,
        heads=keys.count("swa_num_attention_heads", default=full.heads),
        kv_heads=keys.count("swa_num_key_value_heads", default=full.kv_heads),
        head_dim=keys.count("swa_head_dim", default=full.head_dim),
        v_head_dim=keys.count("swa_v_head_dim", default=full.v_head_dim),
        window_tokens=keys.count("sliding_window_size", "sliding_window"),
    )
    mixers = [windowed if flag else full for flag in pattern]
    return list(zip(mixers, mlps(keys, model_type, count), strict=True))


def gemma4_layers(keys: Keys, model_type: str) -> list[Layer]:
    """Gemma 4: windowed layers, and full ones with wider heads whose values are their keys; experts beside an MLP."""
    count = keys.layers()
    windowed = gqa(keys)
    wide = keys.count("global_head_dim", default=windowed.head_dim)
    full = replace(windowed, head_dim=wide, v_head_dim=wide)
    if keys.flag("attention_k_eq_v"):
        full = replace(
            full, kv_heads=keys.count("num_global_key_value_heads", default=windowed.kv_heads), v_from_k=True
        )
    first_shared = count - keys.whole("num_kv_shared_layers")
    width = keys.count("intermediate_size")
    mlp = Mlp(width=width)
    if keys.flag("enable_moe_block"):
        mlp = replace(moe(keys, model_type), width=width)
    out: list[Layer] = []
    for i, window in enumerate(windows(keys, model_type, count)):
        mixer = full if window is None else replace(windowed, window_tokens=window)
        shares = i >= first_shared
        doubled = shares and keys.flag("use_double_wide_mlp")
        out.append((replace(mixer, shares_kv=shares), replace(mlp, width=2 * width) if doubled else mlp))
    return out


def minimax_m3_layers(keys: Keys, model_type: str) -> list[Layer]:
    """MiniMax-M3: GQA whose sparse layers pick blocks of tokens by a small indexer of their own."""
    layers = plain_layers(keys, model_type)
    sparse = keys.inner("sparse_attention_config")
    if sparse is None or not sparse.flag("use_sparse_attention"):
        return layers
    flags = sparse.items("sparse_attention_freq", length=len(layers)) or [1] * len(layers)
    dim = sparse.count("sparse_index_dim")
    indexed = partial(
        replace,
        index_heads=sparse.count("sparse_num_index_heads"),
        index_head_dim=dim,
        index_topk=sparse.count("sparse_topk_blocks") * sparse.count("sparse_block_size"),
        index_key_bytes=2 * dim,  # kept in 16 bits whatever the KV cache's format
    )
    return [
        (indexed(mixer) if flag and mixer is not None else mixer, mlp)
        for flag, (mixer, mlp) in zip(flags, layers, strict=True)
    ]


def deepseek_v4_layers(keys: Keys, model_type: str) -> list[Layer]:
    """DeepSeek-V4: one shared KV head in a short window, plus pooled entries of r = 4 (indexed) or 128 tokens.

    `compress_ratios` gives r per layer (0: the window alone); key and value are one stored entry of head_dim.
    """
    count = keys.layers()
    dim, index_dim = keys.count("head_dim"), keys.count("index_head_dim")
    window = replace(
        gqa(keys),
        v_from_k=True,
        kv_entry_dims=dim,
        window_tokens=keys.count("sliding_window"),
        q_lora_rank=keys.count("q_lora_rank"),
        o_lora_rank=keys.count("o_lora_rank"),
        o_groups=keys.count("o_groups"),
    )
    indexed = replace(
        window,
        index_heads=keys.count("index_n_heads"),
        index_head_dim=index_dim,
        index_topk=keys.count("index_topk"),
        index_key_bytes=fp8_key_bytes(index_dim),
    )
    ratios = keys.items("compress_ratios", length=count)
    if ratios is None:
        raise InputError(f"{keys.where}: compress_ratios", expected="a list, one ratio a layer", found="no such key")
    out: list[Layer] = []
    for ratio, mlp in zip(ratios, mlps(keys, model_type, count), strict=True):
        if ratio not in (0, 4, 128):
            raise UnsupportedError(f"{keys.where}: compress_ratios: {ratio!r} is not one of 0, 4, 128")
        mixer = indexed if ratio == 4 else window
        out.append((replace(mixer, kv_compress_ratio=ratio or 1), mlp))
    return out

"""Any Hugging Face config.json as a Model."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trilemma.catalogue.config_hybrids import (
    deepseek_v4_layers,
    gemma4_layers,
    kimi_linear_layers,
    mimo_v2_layers,
    minimax_m3_layers,
    nemotron_h_layers,
    nemotron_nas_layers,
    qwen_next_layers,
)
from trilemma.catalogue.config_keys import Keys
from trilemma.catalogue.config_layers import Layer, mla_layers, plain_layers
from trilemma.catalogue.config_quant import native_precision
from trilemma.catalogue.config_vision import vision_params
from trilemma.catalogue.model import Block, Model
from trilemma.errors import InputError, UnsupportedError

_QUANT_FILE = "hf_quant_config.json"
_TEXT_KEYS = ("text_config", "llm_config", "language_config", "language_model_config")

# model_type (of the text config) -> reader; the one list of architectures known by name.
READERS: Mapping[str, Callable[[Keys, str], list[Layer]]] = {
    **dict.fromkeys(
        (
            *("llama", "llama4", "llama4_text", "mistral", "mistral3", "ministral", "mixtral", "phi3", "phimoe"),
            *("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"),
            *("qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text", "mimo", "minimax_m2", "gpt_oss", "step3p7"),
            *("gemma", "gemma2", "gemma3", "gemma3_text", "starcoder2", "nemotron", "granite", "olmo2", "olmo3"),
            *("glm4", "glm4_moe", "ernie4_5", "ernie4_5_moe", "exaone4", "smollm3", "seed_oss", "cohere2"),
        ),
        plain_layers,
    ),
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite"), mla_layers
    ),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), qwen_next_layers),
    **dict.fromkeys(("deepseek_v4", "deepseek_ref"), deepseek_v4_layers),
    **dict.fromkeys(("gemma4", "gemma4_text"), gemma4_layers),
    "kimi_linear": kimi_linear_layers,
    "nemotron_h": nemotron_h_layers,
    "nemotron-nas": nemotron_nas_layers,
    "mimo_v2_flash": mimo_v2_layers,
    "minimax_m3": minimax_m3_layers,
}
# Keys that mean another mixer than the one the plain readers build; their presence in an unknown type is no guess.
_FOREIGN = (
    *("linear_attn_config", "linear_num_value_heads", "hybrid_override_pattern", "layers_block_type", "ssm_cfg"),
    *("mamba_d_state", "compress_ratios", "sparse_attention_config", "is_encoder_decoder", "block_configs"),
)


def read_config_json(path: Path) -> Model:
    """The model a config.json (or the folder that holds it) describes, named after its folder or file.

    A quantised checkpoint's hf_quant_config.json beside it is read too. Raises InputError naming file and position
    for a missing, truncated or malformed file, file and key for a missing or wrong value; UnsupportedError for an
    architecture or weight format that cannot be read.
    """
    file = path / "config.json" if path.is_dir() else path
    config = _read_object(file)
    beside = file.with_name(
        file.name.replace("config.json", _QUANT_FILE) if file.name.endswith("config.json") else _QUANT_FILE
    )
    quant = _read_object(beside) if beside.is_file() else None
    return model_from_config(config, where=str(file), quant=quant, name=_name_from(file))


def _name_from(file: Path) -> str:
    stem = file.parent.resolve().name if file.name == "config.json" else file.name.removesuffix(".json")
    return stem.removesuffix("_config").replace("--", "/", 1) or file.stem


def _read_object(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(str(file), expected="a config.json or a folder with one", found="no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file), expected="a readable JSON file", found=str(error)) from None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{file}: line {error.lineno} column {error.colno}"
        cut = error.pos >= len(text.rstrip())
        hint = "the file ends too early: is it truncated?" if cut or "Unterminated" in error.msg else ""
        raise InputError(place, expected="valid JSON", found=error.msg, hint=hint) from None
    except RecursionError:
        raise InputError(str(file), expected="a config.json", found="JSON nested too deep") from None
    if not isinstance(value, dict):
        raise InputError(str(file), expected="a JSON object", found=type(value).__name__)
    return value


def model_from_config(
    config: Mapping[str, Any], *, where: str, quant: Mapping[str, Any] | None = None, name: str = ""
) -> Model:
    """The model described by a parsed config.json.

    `quant` is the content of hf_quant_config.json where there is one; `name` the model's (default: the file's own
    _name_or_path, else its model_type). Errors as in `read_config_json`.

    >>> toy = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    ...        "intermediate_size": 256, "vocab_size": 1000}
    >>> model_from_config(toy, where="toy").blocks[0].mlp.width
    256
    """
    top = Keys(config, where)
    text = next((inner for key in _TEXT_KEYS if (inner := top.inner(key)) is not None), top)
    model_type = text.text("model_type", top.text("model_type"))
    reader, note = _reader(text, model_type)
    hidden = text.count("hidden_size")
    layers = reader(text, model_type)
    vision, vision_note = vision_params(top, hidden)
    quantised = text if text.has("quantization_config") or text.has("expert_dtype") else top
    return Model(
        name=name or top.text("_name_or_path") or model_type,
        hidden=hidden,
        vocab=text.count("vocab_size"),
        blocks=gather(layers),
        tied_embeddings=_tied(top, text, model_type),
        precision=native_precision(quantised, quant),
        max_context_tokens=text.whole("max_position_embeddings", "max_sequence_length", "seq_length"),
        mtp_layers=_mtp_layers(text),
        vision_params=vision,
        extra_params=_extra_params(text, hidden, len(layers)),
        reference=f"config.json of {name or where}",
        note="; ".join(part for part in (note, vision_note) if part),
    )


def _reader(text: Keys, model_type: str) -> tuple[Callable[[Keys, str], list[Layer]], str]:
    known = READERS.get(model_type)
    if known is not None:
        return known, ""
    foreign = [key for key in _FOREIGN if text.values.get(key)]
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not text.has(key)]
    what = f"{text.where}: model_type: {model_type or 'none'!r} is not an architecture known here"
    if foreign:
        raise UnsupportedError(f"{what}, and {foreign[0]} says that it is not Llama-like")
    if missing:
        raise UnsupportedError(f"{what}, and it does not look Llama-like: {', '.join(missing)} missing")
    note = f"architecture {model_type or 'without a model_type'} is not known: read as "
    if text.has("kv_lora_rank"):
        return mla_layers, note + "a DeepSeek-like decoder"
    if not (text.has("intermediate_size") or text.has("moe_intermediate_size")):
        raise UnsupportedError(f"{what}, and it does not look Llama-like: intermediate_size missing")
    return plain_layers, note + "a Llama-like decoder"


def gather(layers: Iterable[Layer]) -> tuple[Block, ...]:
    """Equal layers gathered into blocks, in the order of their first appearance."""
    counts: dict[Layer, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(Block(count=n, attention=mixer, mlp=mlp) for (mixer, mlp), n in counts.items())


def _tied(top: Keys, text: Keys, model_type: str) -> bool:
    """Tied where either level says so; silent files follow their class: Gemma ties, the others here do not."""
    if text.has("tie_word_embeddings") or top.has("tie_word_embeddings"):
        return text.flag("tie_word_embeddings", default=top.flag("tie_word_embeddings"))
    return model_type.startswith(("gemma", "starcoder2", "cohere2"))


def _mtp_layers(text: Keys) -> int:
    named = text.whole("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
    return named or text.whole("num_mtp_modules") * text.whole("mtp_transformer_layers", default=1)


def _extra_params(text: Keys, hidden: int, layers: int) -> int:
    """Hyper-connections (DeepSeek-V4), attention residuals (Kimi K3), per-layer embeddings (Gemma 3n, 4)."""
    extra = 0
    if text.has("hc_mult"):
        streams = text.count("hc_mult")
        # Two per layer, each mapping the streams to (2 + streams) x streams mixing weights; one before the head.
        extra += 2 * layers * streams * hidden * (2 + streams) * streams + streams * hidden * streams
    if text.has("attn_res_block_size"):
        extra += 4 * hidden * layers + 2 * hidden
    per_layer = text.whole("hidden_size_per_layer_input")
    if per_layer:
        vocab = text.count("vocab_size_per_layer_input", default=text.count("vocab_size"))
        extra += vocab * layers * per_layer + hidden * layers * per_layer + layers * 2 * hidden * per_layer
    return extra

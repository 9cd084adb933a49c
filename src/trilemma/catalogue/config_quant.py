"""The native number format of a checkpoint, from whatever its quantisation config calls it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trilemma.catalogue.config_keys import Keys
from trilemma.errors import UnsupportedError

# (pattern in a scheme's name, our precision), first match wins: NVFP4 before FP8, W4A8 before INT8.
_SCHEMES = (
    ("NVFP4", "nvfp4"),
    ("MXFP4", "mxfp4"),
    ("MXFP8", "fp8"),
    ("FP8", "fp8"),
    ("AWQ|GPTQ|W4A(8|16)|INT4|INT_?W?4", "int4"),
    ("INT8|W8A(8|16)|SQ", "int8"),
)
_METHODS = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "deepseek_v4_fp8": "fp8",
    "mxfp4": "mxfp4",
    "mxfp8": "fp8",
    "nvfp4": "nvfp4",
    "awq": "int4",
    "awq_marlin": "int4",
    "gptq_marlin": "int4",
    "w8a8_int8": "int8",
    "smoothquant": "int8",
}
_MANY_WEIGHTS = re.compile(r"expert|mlp|ffn|feed_forward|mixer")


def native_precision(config: Keys, quant: Mapping[str, Any] | None) -> str:
    """The checkpoint's weight format: "bf16", "fp8", "int8", "int4", "mxfp4" or "nvfp4".

    `config` is the model's (text) config, `quant` the content of hf_quant_config.json where there is one. In a mixed
    checkpoint the format of the experts (or MLPs), which hold most weights, names it. float16 and float32 checkpoints
    count as bf16: engines serve them in 16 bits.
    """
    found = _from_config(config) if config.has("quantization_config") else ""
    if quant is not None and not found:
        inner = Keys(quant, f"{config.where} (hf_quant_config.json)").inner("quantization")
        found = _from_modelopt(inner) if inner is not None else ""
    if found in {"", "fp8"} and config.text("expert_dtype") == "fp4":
        return "mxfp4"  # DeepSeek-V4: FP8 attention, MXFP4 experts (vLLM, DeepseekV4FP8Config)
    return found or "bf16"


def _from_config(config: Keys) -> str:
    keys = config.inner("quantization_config")
    if keys is None:
        return ""
    if keys.has("moe_quant_algo"):
        return _scheme(keys.text("moe_quant_algo"), keys)
    if keys.has("quant_algo"):
        return _from_modelopt(keys)
    method = keys.text("quant_method").lower()
    if method in _METHODS:
        return _METHODS[method]
    if method in {"compressed-tensors", "compressed_tensors", "quark", "modelopt", ""}:
        return _from_groups(keys)
    if method in {"gptq", "auto-round", "autoround", "bitsandbytes", "hqq", "torchao"}:
        return _from_bits(keys, method)
    raise UnsupportedError(f"{keys.where}: quant_method: {method!r} is a weight format this version cannot read")


def _from_modelopt(keys: Keys) -> str:
    algo = keys.text("quant_algo").upper()
    if algo in {"", "NO_QUANT", "NONE"}:
        return ""
    if algo != "MIXED_PRECISION":
        return _scheme(algo, keys)
    layers = keys.inner("quantized_layers")
    if layers is None:
        return _from_groups(keys)
    votes = Counter(
        _scheme(str(layer.get("quant_algo", "")), keys)
        for name, layer in layers.values.items()
        if isinstance(layer, Mapping) and _MANY_WEIGHTS.search(name)
    )
    return _fewest_bits(votes) if votes else _from_groups(keys)


def _scheme(name: str, keys: Keys) -> str:
    for pattern, precision in _SCHEMES:
        if re.search(pattern, name.upper()):
            return precision
    raise UnsupportedError(f"{keys.where}: quant_algo: {name!r} is a weight format this version cannot read")


def _from_groups(keys: Keys) -> str:
    """compressed-tensors and quark: the weights' bits and type of the config groups, or the format's name."""
    named = keys.text("format")
    if re.search("nvfp4|mxfp4|mxfp8", named):
        return _scheme(named, keys)
    groups = keys.inner("config_groups")
    found: Counter[str] = Counter()
    for group in groups.values.values() if groups is not None else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            found[_weight_format(weights, str(group.get("format", "")), keys)] += 1
    if found:
        return _fewest_bits(found)
    layers = keys.inner("global_quant_config")
    weight = layers.values.get("weight") if layers is not None else None
    if isinstance(weight, Mapping):
        dtype = str(weight.get("dtype", ""))
        return "mxfp4" if dtype == "fp4" else _scheme(dtype, keys)
    raise UnsupportedError(f"{keys.where}: no config_groups, format or quant_algo that says how weights are stored")


def _weight_format(weights: Mapping[str, Any], named: str, keys: Keys) -> str:
    bits, kind = weights.get("num_bits"), str(weights.get("type", "int"))
    if bits == 4 and kind == "float":
        return "mxfp4" if "mxfp4" in named or weights.get("group_size") == 32 else "nvfp4"
    formats: dict[tuple[Any, str], str] = {(8, "float"): "fp8", (8, "int"): "int8", (4, "int"): "int4"}
    if (bits, kind) not in formats:
        raise UnsupportedError(f"{keys.where}: config_groups: {bits} bits of {kind!r} cannot be read")
    return formats[bits, kind]


def _from_bits(keys: Keys, method: str) -> str:
    if method == "bitsandbytes":
        return "int4" if keys.flag("load_in_4bit") else "int8"
    bits = keys.count("bits", "nbits", "w_bit", default=4)
    if bits not in {4, 8}:
        raise UnsupportedError(f"{keys.where}: bits: {method} with {bits} bits cannot be read, only 4 and 8")
    return "int4" if bits == 4 else "int8"


def _fewest_bits(found: Iterable[str]) -> str:
    return min(found, key=["nvfp4", "mxfp4", "int4", "fp8", "int8"].index)

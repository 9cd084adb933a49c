"""Rebuild src/trilemma/catalogue/data/models.toml from a folder of Hugging Face config.json files.

    python benchmarks/rebuild_models.py CONFIG_DIR [OUTPUT]

CONFIG_DIR holds files named OWNER--NAME_config.json, with OWNER--NAME_hf_quant_config.json beside quantised ones.
Checkpoints of equal architecture become one row, named after the original publisher's unquantised (or least
quantised) one, the others being aliases. Same folder in, same file out.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilemma.catalogue.config_json import model_from_config, read_config_json
from trilemma.catalogue.model import Model
from trilemma.catalogue.models import row_of

OUTPUT = Path(__file__).parents[1] / "src/trilemma/catalogue/data/models.toml"
HEADER = """\
# Models: one row an architecture, made from published config.json files by benchmarks/rebuild_models.py.
# Keys are the fields of Model, Block, Attention and Mlp in trilemma.catalogue.model; defaults are left out.
# Your own file of the same shape adds rows or replaces those of the same name.
"""

# A checkpoint whose file does not carry its quantisation config.
PRECISION = {"nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4": "nvfp4"}

# Further names of the same architecture: instruction-tuned, dated and requantised checkpoints, names in price lists.
ALIASES = {
    "meta-llama/Meta-Llama-3.1-8B": (
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Meta-Llama-3-8B",
        "llama-3.1-8b",
    ),
    "meta-llama/Meta-Llama-3.1-70B": (
        "meta-llama/Llama-3.1-70B",
        "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "meta-llama/Meta-Llama-3-70B",
        "Llama-3.1-70B",
        "Llama-3.3-70B",
    ),
    "meta-llama/Meta-Llama-3.1-405B": (
        "meta-llama/Llama-3.1-405B",
        "meta-llama/Llama-3.1-405B-Instruct",
        "meta-llama/Llama-3.1-405B-Instruct-FP8",
        "llama-3.1-405b",
    ),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": (
        "meta-llama/Llama-4-Scout-17B-16E",
        "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic",
        "llama-4-scout",
    ),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": (
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
        "llama-4-maverick",
    ),
    "mistralai/Mixtral-8x7B-v0.1": ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
    "mistralai/Mixtral-8x22B-v0.1": ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mixtral-8x22b"),
    "Qwen/Qwen3-30B-A3B": (
        "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "Qwen/Qwen3-30B-A3B-Thinking-2507",
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    ),
    "Qwen/Qwen3-235B-A22B": (
        "Qwen/Qwen3-235B-A22B-Instruct-2507",
        "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
        "Qwen/Qwen3-235B-A22B-Thinking-2507",
        "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
        "Qwen3-235B-A22B-Instruct-2507",
    ),
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8",),
    "Qwen/Qwen3.5-27B": ("Qwen/Qwen3.6-27B", "nvidia/Qwen3.6-27B-NVFP4"),
    "Qwen/Qwen3.5-35B-A3B": ("Qwen/Qwen3.6-35B-A3B",),
    "deepseek-ai/DeepSeek-V3": (
        "deepseek-ai/DeepSeek-V3-0324",
        "deepseek-ai/DeepSeek-V3.1",
        "deepseek-ai/DeepSeek-R1-0528",
        "DeepSeek-V3-0324",
        "DeepSeek-V3.1",
        "DeepSeek-R1",
        "DeepSeek-R1-0528",
    ),
    "moonshotai/Kimi-K2.5": ("moonshotai/Kimi-K2.6", "moonshotai/Kimi-K2.7-Code", "Kimi-K2.6/2.7"),
    "google/gemma-4-26B-A4B": ("google/gemma-4-26B-A4B-it",),
    "nvidia/Gemma-4-31B-IT-NVFP4": ("google/gemma-4-31B", "google/gemma-4-31B-it", "gemma-4-31b"),
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": ("nvidia/Llama-3_3-Nemotron-Super-49B-v1_5",),
    "meta-llama/Llama-2-7b-hf": ("huggyllama/llama-7b",),
    "Qwen/Qwen2-7B": ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
    "Qwen/Qwen2-72B": ("Qwen/Qwen2.5-72B", "Qwen/Qwen2.5-72B-Instruct"),
    "Qwen/Qwen2.5-14B": ("Qwen/Qwen2.5-14B-Instruct",),
    "Qwen/Qwen2.5-32B": ("Qwen/Qwen2.5-32B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"),
    "meta-llama/Llama-3.2-1B": ("meta-llama/Llama-3.2-1B-Instruct",),
    "meta-llama/Llama-3.2-3B": ("meta-llama/Llama-3.2-3B-Instruct",),
    "google/gemma-3-12b-it": ("google/gemma-3-12b-pt",),
    "google/gemma-3-27b-it": ("google/gemma-3-27b-pt",),
}


# Plain models that published measurements use and whose config.json is not in the folder: the keys that decide, as
# (hidden, width, layers, heads, KV heads, vocabulary, context) and what differs from Llama.
PLAIN: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "meta-llama/Llama-2-7b-hf": ((4096, 11008, 32, 32, 32, 32000, 4096), {}),
    "meta-llama/Llama-2-13b-hf": ((5120, 13824, 40, 40, 40, 32000, 4096), {}),
    "meta-llama/Llama-2-70b-hf": ((8192, 28672, 80, 64, 8, 32000, 4096), {}),
    "meta-llama/Llama-3.2-1B": (
        (2048, 8192, 16, 32, 8, 128256, 131072),
        {"head_dim": 64, "tie_word_embeddings": True},
    ),
    "meta-llama/Llama-3.2-3B": (
        (3072, 8192, 28, 24, 8, 128256, 131072),
        {"head_dim": 128, "tie_word_embeddings": True},
    ),
    "mistralai/Mistral-7B-v0.1": (
        (4096, 14336, 32, 32, 8, 32000, 32768),
        {"model_type": "mistral", "sliding_window": 4096},
    ),
    "mistralai/Mistral-7B-v0.3": ((4096, 14336, 32, 32, 8, 32768, 32768), {"model_type": "mistral"}),
    "Qwen/Qwen2-7B": ((3584, 18944, 28, 28, 4, 152064, 131072), {"model_type": "qwen2"}),
    "Qwen/Qwen2-72B": ((8192, 29568, 80, 64, 8, 152064, 131072), {"model_type": "qwen2"}),
    "Qwen/Qwen2.5-14B": ((5120, 13824, 48, 40, 8, 152064, 131072), {"model_type": "qwen2"}),
    "Qwen/Qwen2.5-32B": ((5120, 27648, 64, 40, 8, 152064, 131072), {"model_type": "qwen2"}),
    "Qwen/Qwen3-4B": (
        (2560, 9728, 36, 32, 8, 151936, 40960),
        {"model_type": "qwen3", "head_dim": 128, "tie_word_embeddings": True},
    ),
    "Qwen/Qwen3-14B": ((5120, 17408, 40, 40, 8, 151936, 40960), {"model_type": "qwen3", "head_dim": 128}),
    "google/gemma-3-12b-it": (
        (3840, 15360, 48, 16, 8, 262208, 131072),
        {"model_type": "gemma3_text", "head_dim": 256, "sliding_window": 1024},
    ),
    "google/gemma-3-27b-it": (
        (5376, 21504, 62, 32, 16, 262208, 131072),
        {"model_type": "gemma3_text", "head_dim": 128, "sliding_window": 1024},
    ),
}
PLAIN_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)


def read_folder(folder: Path) -> list[Model]:
    """Every model of the folder, and the plain ones, in the order of their names."""
    found: dict[str, Model] = {}
    for file in sorted(folder.glob("*_config.json")):
        if file.name.endswith("_hf_quant_config.json"):
            continue
        model = read_config_json(file)
        found[model.name] = replace(
            model,
            precision=PRECISION.get(model.name, model.precision),
            reference=f"config.json of {model.name}",
        )
    for name, (numbers, more) in PLAIN.items():
        config = {"model_type": "llama", **dict(zip(PLAIN_KEYS, numbers, strict=True)), **more}
        found.setdefault(name, model_from_config(config, where=name, name=name))
    return [found[name] for name in sorted(found, key=str.lower)]


def merged(models: Iterable[Model]) -> list[Model]:
    """One model an architecture, the others' names its aliases."""
    groups: dict[Model, list[Model]] = {}
    for model in models:
        shape = replace(model, name="", precision="", reference="", note="", aliases=(), max_context_tokens=0)
        groups.setdefault(shape, []).append(model)
    rows = []
    for group in groups.values():
        first = min(group, key=_rank)
        names = [model.name for model in group] + [alias for model in group for alias in ALIASES.get(model.name, ())]
        short = first.name.partition("/")[2].lower()
        distinct = {name.lower(): name for name in [*names, short]}
        distinct.pop(first.name.lower(), None)
        rows.append(replace(first, aliases=tuple(sorted(distinct.values(), key=str.lower))))
    return sorted(rows, key=lambda model: model.name.lower())


def _rank(model: Model) -> tuple[Any, ...]:
    """The original before requantised copies, an earlier release before a later one, a plain name before a tuned."""
    requantised = "FP8" in model.name or "NVFP4" in model.name
    copied = model.name.startswith(("nvidia/", "sgl-project/"))
    first = ("deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-VL-32B-Instruct")
    return (requantised, copied, model.name not in first, len(model.name), model.name)


def toml_text(models: Iterable[Model]) -> str:
    """The rows as TOML, a block a line."""
    parts = [HEADER]
    for model in models:
        row = row_of(model)
        blocks = row.pop("blocks")
        lines = [f"{key} = {_value(value)}" for key, value in row.items()]
        lines += ["blocks = [", *(f"  {_value(block)}," for block in blocks), "]"]
        parts.append("\n".join([f'[models."{model.name}"]', *lines]) + "\n")
    return "\n".join(parts)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if not isinstance(value, dict):
        raise TypeError(f"no TOML for {value!r}")
    return "{" + ", ".join(f"{key} = {_value(held)}" for key, held in value.items()) + "}"


def main(arguments: list[str]) -> None:
    """Read the folder, write the file, say how many rows it has."""
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    output = Path(arguments[1]) if len(arguments) == 2 else OUTPUT
    rows = merged(read_folder(Path(arguments[0])))
    output.write_text(toml_text(rows), encoding="utf-8")
    print(f"{output}: {len(rows)} models, {sum(len(row.aliases) for row in rows)} aliases")


if __name__ == "__main__":
    main(sys.argv[1:])

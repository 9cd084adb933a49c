"""Rebuild src/trilemma/catalogue/data/quality.toml from published scores before and after quantisation.

    python benchmarks/rebuild_quality.py QUANT_ACCURACY_CSV [OUTPUT]

One row of the CSV is a score of one model on one benchmark: scheme, model, size_b, benchmark, baseline, quantised,
recovery_pct, source. Rows are gathered by scheme and size class; a class gets a row in the table whatever its count,
and the count is shipped with it. Same file in, same file out.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from trilemma.catalogue.quality import SIZE_CLASSES, size_class

OUTPUT = Path(__file__).parents[1] / "src/trilemma/catalogue/data/quality.toml"
AS_OF = "2026-11"
HEADER = """\
# Scores kept after quantisation, in percent of the score before, by scheme and size of the model. Written by
# benchmarks/rebuild_quality.py; do not edit by hand. recovery_pct is the mean over count scores of so many models, low
# and high their 10% and 90% quantiles. The catalogue has no precision int8_w8a16 or int4_w4a8; fp8_kv is the KV cache.
"""

# Scheme in the file -> name in the catalogue, or a name of its own where the catalogue has no such precision.
SCHEMES = {
    "FP8-dynamic (W8A8)": "fp8",
    "FP8-static (W8A8)": "fp8",
    "FP8 (W8A8)": "fp8",
    "INT8 (W8A8)": "int8",
    "INT8 GPTQ (W8A16)": "int8_w8a16",
    "INT4 (W4A16 GPTQ)": "int4",
    "INT4 (W4A16)": "int4",
    "INT4 AWQ (W4A16)": "int4",
    "INT4 GPTQ (W4A16)": "int4",
    "INT4-AWQ + FP8 act (W4A8)": "int4_w4a8",
    "NVFP4 (W4A4)": "nvfp4",
    "NVFP4 (vs official FP8)": "nvfp4",
    "FP8 KV cache": "fp8_kv",
}
# Start of a source in the file -> key and wording in the table.
SOURCES = {
    "gracejackson-sudo": ("delta", "gracejackson-sudo/quant-delta-predictor @2c54f93a, from RedHatAI model cards"),
    "RedHatAI": ("redhat", "model cards of RedHatAI / NeuralMagic checkpoints"),
    "NVIDIA HF": ("nvidia", "model cards of NVIDIA checkpoints"),
    "NVIDIA/Model-Optimizer": ("modelopt", "NVIDIA/Model-Optimizer examples/benchmark.md, MMLU against BF16"),
    "QwenLM/Qwen3 docs": ("qwen2", "QwenLM/Qwen3 docs, quantization_benchmark.rst (Qwen2)"),
    "QwenLM/Qwen README": ("qwen", "QwenLM/Qwen README (Qwen-Chat GPTQ)"),
    "vLLM blog 2026-04-22": ("vllm_kv", "vLLM blog 2026-04-22, FP8 KV cache"),
}  # fmt: skip
DOUBTFUL = ("reconstructed", "assumed", "inferred", "check_little")
LEAST_BASELINE = 5.0  # of 100 points: a score this near to nothing says nothing when it moves
FEW_MODELS = 3


def refusal(row: dict[str, str]) -> str | None:
    """Why a row is left out, or None."""
    said = " ".join(row.values()).lower()
    baseline = float(row["baseline"] or 100)
    points = baseline if baseline > 1 else 100 * baseline  # some cards give shares of 1
    reasons = {
        "its notes say that it is not a measurement": any(word in said for word in DOUBTFUL),
        "a fault of one release, since repaired": row["scheme"] not in SCHEMES,
        "no size": not row["size_b"],
        "the mean of other rows": row["benchmark"].endswith("_avg"),
        "FP8 against FP8": SCHEMES.get(row["scheme"]) == "fp8" and "official FP8" in row["model"],
        f"a baseline under {LEAST_BASELINE:g} points": points < LEAST_BASELINE,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def source_of(row: dict[str, str]) -> tuple[str, str]:
    """Key and wording of a row's source; KeyError where it is not listed here."""
    for start, known in SOURCES.items():
        if row["source"].startswith(start):
            return known
    raise KeyError(row["source"])


def against_fp8(row: dict[str, str]) -> bool:
    """Whether the score before is an FP8 checkpoint's: models published in FP8, or compared with its official one."""
    return "FP8" in row["scheme"].partition("(vs")[2] or "vs FP8" in row["model"]


def model_of(row: dict[str, str]) -> str:
    """The model alone: some rows name its weights' format or the attention kernel beside it."""
    return row["model"].partition(" ")[0]


def note_of(name: str, rows: list[dict[str, str]]) -> str:
    """What a reader should know of a class's rows."""
    notes = []
    models = {model_of(row) for row in rows}
    if len(models) < FEW_MODELS:
        notes.append(f"of {len(models)} model{'s' if len(models) > 1 else ''} only")
    fp8 = sum(against_fp8(row) for row in rows)
    if fp8:
        notes.append(f"{fp8} of {len(rows)} scores against an FP8 checkpoint")
    if name == "fp8_kv":
        notes.append("retrieval from 128k tokens and more with FP8 attention: the hardest case; read from text")
    return "; ".join(notes)


def gather(path: Path) -> tuple[dict[str, dict[str, list[dict[str, str]]]], Counter[str]]:
    """Rows by name and size class, and how many were left out for which reason."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    kept: dict[str, dict[str, list[dict[str, str]]]] = {}
    left: Counter[str] = Counter()
    for row in rows:
        reason = refusal(row)
        if reason is None:
            of_size = kept.setdefault(SCHEMES[row["scheme"]], {})
            of_size.setdefault(size_class(1e9 * float(row["size_b"])), []).append(row)
        else:
            left[reason] += 1
    return kept, left


def toml_text(kept: dict[str, dict[str, list[dict[str, str]]]]) -> str:
    parts = [HEADER + f'source = "measured"\nas_of = "{AS_OF}"\n', "[references]"]
    parts += [f'{key} = "{words}"' for key, words in SOURCES.values()]
    for name in sorted(kept):
        for size in SIZE_CLASSES:
            rows = kept[name].get(size)
            if not rows:
                continue
            recovery = np.array([float(row["recovery_pct"]) for row in rows])
            low, high = np.percentile(recovery, [10, 90])
            keys = ", ".join(f'"{key}"' for key in sorted({source_of(row)[0] for row in rows}))
            note = note_of(name, rows)
            parts += [
                f'\n[schemes.{name}.{size}]',
                f"recovery_pct = {recovery.mean():.2f}",
                f"low = {low:.2f}",
                f"high = {high:.2f}",
                f"count = {len(rows)}",
                f"models = {len({model_of(row) for row in rows})}",
                f"references = [{keys}]",
                *([f'note = "{note}"'] if note else []),
            ]  # fmt: skip
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    output = Path(arguments[1]) if len(arguments) == 2 else OUTPUT
    kept, left = gather(Path(arguments[0]))
    output.write_text(toml_text(kept), encoding="utf-8")
    count = sum(len(rows) for of_size in kept.values() for rows in of_size.values())
    print(f"{output}: {count} scores kept")
    for reason, rows in left.most_common():
        print(f"  {rows:3} left out: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])

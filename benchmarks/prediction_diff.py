"""What a change moves: predictions of a fixed set of deployments beside the ones kept from before.

    python benchmarks/prediction_diff.py [--write] [--least PERCENT]

Prints every deployment whose TPOT, TTFT or throughput moved by at least PERCENT (0.5), and the median move by engine
and by accelerator. It judges nothing and exits with 0: whoever changes the latency model or the catalogue reads it,
and keeps the new ones with --write.
"""

import argparse
import csv
import statistics
import sys
from itertools import product
from pathlib import Path

from trilemma.api.predicting import predict

KEPT = Path(__file__).parent / "data" / "predictions.csv"
NUMBERS = ("predicted_tpot_ms", "predicted_ttft_ms", "predicted_tok_s_per_gpu")
COLUMNS = (
    "model", "system", "engine", "precision", "isl", "osl", "concurrency", "tp", "dp", "ep", "speculative",
    "length_ratio_low",
)  # fmt: skip
# model, precision, TP, attention DP, EP
MODELS = (
    ("meta-llama/Meta-Llama-3.1-8B", "bf16", 1, 1, 1),
    ("meta-llama/Meta-Llama-3.1-70B", "fp8", 4, 1, 1),
    ("Qwen/Qwen3-32B", "int4", 1, 1, 1),
    ("openai/gpt-oss-120b", "mxfp4", 2, 1, 1),
    ("Qwen/Qwen3-235B-A22B", "fp8", 4, 1, 4),
    ("deepseek-ai/DeepSeek-V3", "fp8", 8, 1, 8),
    ("deepseek-ai/DeepSeek-V3", "fp8", 1, 8, 8),
    ("Qwen/Qwen3.5-397B-A17B", "fp8", 8, 1, 1),
    ("google/gemma-3-27b-it", "bf16", 2, 1, 1),
)
SYSTEMS = ("h100_sxm", "h200_sxm", "b200_sxm", "mi300x", "l40s")
ENGINES = ("vllm", "trtllm", "sglang")
LOADS = ((1024, 1024, 16), (8192, 1024, 64))


def deployments() -> list[dict[str, str]]:
    """The fixed set, as rows of `trilemma predict`."""
    rows = []
    for (model, precision, tp, dp, ep), system, engine, (isl, osl, clients) in product(MODELS, SYSTEMS, ENGINES, LOADS):
        values = (model, system, engine, precision, isl, osl, clients, tp, dp, ep, "", 0.8)
        rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
    return rows


def text(value: object) -> str:
    return "" if value is None else f"{float(str(value)):.5g}"


def moves(before: dict[str, str], now: dict[str, str]) -> dict[str, float]:
    """Percent by which each number moved; nothing where one of them is missing."""
    return {
        name: 100 * (float(now[name]) / float(before[name]) - 1)
        for name in NUMBERS
        if before.get(name) and now.get(name)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--least", type=float, default=0.5, metavar="PERCENT")
    asked = parser.parse_args()
    rows = deployments()
    now = [{**row, **{n: text(a[n]) for n in NUMBERS}} for row, a in zip(rows, predict(rows), strict=True)]
    if asked.write:
        with KEPT.open("w", newline="", encoding="utf-8") as file:
            sheet = csv.DictWriter(file, [*COLUMNS, *NUMBERS], lineterminator="\n")
            sheet.writeheader()
            sheet.writerows(now)
        return
    with KEPT.open(newline="", encoding="utf-8") as file:
        kept = {tuple(r[c] for c in COLUMNS): r for r in csv.DictReader(file)}
    moved = 0
    by: dict[tuple[str, str], list[float]] = {}
    for row in now:
        before = kept.get(tuple(row[c] for c in COLUMNS), {})
        name = " ".join(row[c] for c in ("model", "system", "engine", "precision", "isl", "osl", "concurrency"))
        if bool(before.get(NUMBERS[0])) != bool(row[NUMBERS[0]]):
            moved += 1
            print(f"{name}: {'predicted now' if row[NUMBERS[0]] else 'no longer predicted'}")
            continue
        change = moves(before, row)
        for column in ("engine", "system"):
            by.setdefault((column, row[column]), []).extend(change.get(n, 0.0) for n in NUMBERS[:1])
        if any(abs(percent) >= asked.least for percent in change.values()):
            moved += 1
            print(f"{name}: " + ", ".join(f"{n[10:]} {percent:+.1f}%" for n, percent in change.items()))
    for (column, value), percents in sorted(by.items()):
        if any(percents):
            print(f"TPOT, {column} {value}: median {statistics.median(percents):+.1f}%")
    print(f"{moved} of {len(now)} predictions moved by {asked.least:g}% or more", file=sys.stderr)


if __name__ == "__main__":
    main()

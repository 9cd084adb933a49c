"""The page docs/accuracy.md and its scatter plots, written by benchmarks/accuracy.py --page.

Everything on it is computed from the runs and their predictions, so that the same runs give the same page; its date is
that of the shipped constants.
"""

import statistics
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor, log10
from pathlib import Path
from textwrap import fill

from benchmarks.fitting.runs import DISTRUSTED, ENGINES, Measured
from benchmarks.scoring import BOUNDS_MS, TOLERANCE, Scored, score

from trilemma.api.predicting import CONFIDENCE

METRICS = {"tpot": "TPOT", "ttft": "TTFT", "tok_s_per_gpu": "tokens/s/GPU"}
TITLES = {
    "new_configuration": "New configuration",
    "new_model": "New model",
    "new_accelerator": "New accelerator",
    "data_sheet_only": "Data sheet only",
}
LEFT_OUT = {
    "new_configuration": "a deployment (model, accelerator, engine, precision, parallelism, MTP), in all versions",
    "new_model": "a model, under every engine and on every accelerator",
    "new_accelerator": "an accelerator; its kernels stay measured",
    "data_sheet_only": "an accelerator and its kernels: a relative's stand in",
}
# Mean and median error in percent, at most; penalised regret and violations, at most; intervals hold, from and to.
TARGETS = {
    "new_configuration": {"tpot": (6, 3.5), "ttft": (18, 9), "tok_s_per_gpu": (6, 3.5), "decision": (6, 3)},
    "new_model": {"tpot": (8, 5), "ttft": (25, 14), "tok_s_per_gpu": (9, 6), "decision": (10, 5)},
    "new_accelerator": {"tpot": (8, 5), "ttft": (25, 14), "tok_s_per_gpu": (9, 6), "decision": (10, 5)},
    "data_sheet_only": {"tpot": (15, 10), "ttft": (35, 22), "tok_s_per_gpu": (15, 10), "decision": (20, 7)},
}
HOLDS = (75, 85)
COLUMNS = {"engine": "engine", "system": "accelerator", "precision": "precision", "concurrency": "clients"}
DEPLOYMENT = ("model", "system", "engine", "precision", "tp", "dp", "ep", "pp", "speculative")
FOUR_BITS = ("nvfp4", "mxfp4", "int4")
WORST, SINGLE, LEAST_RUNS, ONE_SIDED = 12, 8, 3, 0.9
NEIGHBOURS = Path(__file__).parents[1] / "src" / "trilemma" / "catalogue" / "data" / "neighbours.toml"
COMMAND = "python benchmarks/accuracy.py --page docs/accuracy.md"


def page(
    path: Path,
    runs: Sequence[Measured],
    splits: Mapping[str, Sequence[Scored]],
    result: Mapping[str, Mapping],
    breakdown: Mapping[str, Mapping[str, Mapping]],
) -> None:
    """Writes the page to `path` and the plots beside it: `accuracy.md`, `accuracy-tpot.svg`, `accuracy-ttft.svg`."""
    near = splits["new_configuration"]
    plots = {metric: path.with_name(f"{path.stem}-{metric}.svg") for metric in ("tpot", "ttft")}
    for metric, file in plots.items():
        file.write_text(scatter(runs, near, metric), encoding="utf-8")
    parts = [
        *opening(runs),
        *summary(runs, splits, result),
        *how(),
        *split_tables(result),
        *decisions(result),
        "## Measured against predicted",
        "New configurations. The full line is equality, the dashed ones are 20% above and below.",
        *(
            f"![Predicted against measured {METRICS[metric]}, logarithmic axes, one dot a run]({file.name})"
            for metric, file in plots.items()
        ),
        *breakdowns(breakdown),
        *weaknesses(runs, near),
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, words: int = 1) -> str:
    """A Markdown table whose first `words` columns are text and whose others are numbers."""
    rule = ["---" if i < words else "---:" for i in range(len(heads))]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in (heads, rule, *rows))


def prose(*sentences: str) -> str:
    """A paragraph."""
    return fill(" ".join(sentences), width=119, break_long_words=False, break_on_hyphens=False)


def pair(values: Sequence[float]) -> str:
    return " / ".join(f"{v:.1f}" for v in values)


def opening(runs: Sequence[Measured]) -> list[str]:
    count = {column: len({r.row[column] for r in runs}) for column in ("model", "system", "engine")}
    deployments = len({tuple(r.row[c] for c in DEPLOYMENT) for r in runs})
    as_of = tomllib.loads(NEIGHBOURS.read_text(encoding="utf-8"))["as_of"]
    return [
        "# How accurate predictions are",
        prose(
            f"Written by `{COMMAND}` with the model of {as_of}; not edited by hand.",
            "Every number is of runs that the prediction had not seen.",
        ),
        prose(
            f"**Measured**: {len(runs):,} closed-loop serving runs of {deployments} deployments: {count['model']}",
            "models",
            f"on {count['system']} accelerators under {count['engine']} engines. A fixed number of clients each",
            "send the",
            "next request when the last is answered, ten requests a client; lengths are uniform, outputs forced to",
            "length;",
            "TTFT and TPOT are means over requests. They are published InferenceX runs, as collected in NVIDIA",
            "AIConfigurator's repository. The engines' settings are not recorded: where launch scripts are public they",
            "are taken from there (guide/latency.md), else defaults, with seats for every",
            "client. Repeats of one run under one engine version differ by 2.8% (mean) and 0.7% (median) in TPOT",
            "and by",
            "7.1% and 2.9% in TTFT: no prediction can be nearer than that.",
        ),
        prose(
            "**Compared**: every run is simulated and corrected as `trilemma predict` does it. The error of a run is",
            "|predicted / measured - 1|; below, *mean* and *median* are over runs, and *bias* is the median of the",
            "signed",
            "error (above 0: more milliseconds, or more tokens/s, than measured). Nothing is left out: runs that",
            "contradict",
            f"each other are in every figure, those on {' and '.join(DISTRUSTED)}, which are not believed, too.",
        ),
    ]


def summary(
    runs: Sequence[Measured], splits: Mapping[str, Sequence[Scored]], result: Mapping[str, Mapping]
) -> list[str]:
    """Targets beside what is reached; with and without the runs that are not believed."""
    heads = ("left out", "", *(f"{name} mean / median" for name in METRICS.values()))
    heads = (*heads, "regret", "violations", "interval holds TPOT / TTFT")
    believed = [r.row["system"] not in DISTRUSTED for r in runs]
    without = f"without {' and '.join(DISTRUSTED)}"
    rows = []
    for split, s in result.items():
        target = TARGETS[split]
        limits = (*(f"{target[m][0]} / {target[m][1]}" for m in METRICS), *target["decision"])
        rows.append((TITLES[split].lower(), "target", *limits, f"{HOLDS[0]} to {HOLDS[1]}"))
        rows.append(("", "reached", *reached(s, target)))
        if not all(believed):
            rest = score([r for r, kept in zip(splits[split], believed, strict=True) if kept])
            rows.append(("", without, *reached(rest, target)))
    return [
        "## Targets and what is reached",
        "Percent; bold is what misses its target.",
        table(heads, rows, words=2),
    ]


def reached(s: Mapping, target: Mapping[str, Sequence[float]]) -> list[str]:
    """The cells of one row: errors, regret, violations, and how often intervals hold."""

    def cell(value: float, most: float) -> str:
        return f"**{value:.1f}**" if round(value, 1) > most else f"{value:.1f}"

    cells = [" / ".join(cell(s[m][e], t) for e, t in zip(("mape", "median"), target[m], strict=True)) for m in METRICS]
    values = (s["decision"]["penalised_regret"], s["decision"]["violations"])
    cells += [cell(value, most) for value, most in zip(values, target["decision"], strict=True)]
    inside = (s["interval"][m]["inside"] for m in ("tpot", "ttft"))
    cells.append(" / ".join(f"{i:.1f}" if HOLDS[0] <= round(i, 1) <= HOLDS[1] else f"**{i:.1f}**" for i in inside))
    return cells


def how() -> list[str]:
    bounds = ", ".join(map(str, BOUNDS_MS))
    return [
        "## How runs are left out",
        prose(
            "Runs are left out in groups, never one by one: the other loads of a deployment say too much about it.",
            "What",
            "the prediction of a group rests on comes from the other groups: the deviations of engine constants",
            "from their",
            "priors, the corrections by neighbouring runs, and the quantiles that make intervals.",
        ),
        table(("split", "left out together"), ((TITLES[s].lower(), text) for s, text in LEFT_OUT.items()), words=2),
        prose(
            "Not made anew for every group: the kernel surfaces, which no serving run enters; the standard",
            "deviations of",
            "the neighbours' process, chosen on runs left out; the point around which the simulator is linear in its",
            "constants; and what was decided by hand with all runs in view (priors, how unevenly experts are",
            "chosen, the",
            "KV cache's format and the tokens of a step where neither runs nor launch scripts say them).",
        ),
        prose(
            "A **decision** takes, for each model, accelerator, precision and pair of lengths with two",
            "configurations or",
            f"more, and for TPOT bounds of {bounds} ms, the configuration and load of highest predicted",
            "tokens/s/GPU whose",
            "safe TPOT is inside the bound. *Regret* is the measured tokens/s/GPU lost against the best choice",
            "there was.",
            f"A choice that misses its bound by more than {100 * (TOLERANCE - 1):.0f}% is a *violation*;",
            "violations, and",
            "bounds left without a choice, count as 100% regret.",
        ),
    ]


def split_tables(result: Mapping[str, Mapping]) -> list[str]:
    parts = []
    for split, s in result.items():
        rows = []
        for m, name in METRICS.items():
            interval = s["interval"].get(m)
            held = (f"{interval['inside']:.1f}", f"{interval['width']:.2f}") if interval else ("", "")
            rows.append((name, f"{s[m]['mape']:.1f}", f"{s[m]['median']:.1f}", f"{s[m]['bias']:+.1f}", *held))
        heads = (f"{s['rows']:,} runs", "mean, %", "median, %", "bias, %", "80% interval holds, %", "its high / low")
        parts += [f"### {TITLES[split]}", table(heads, rows)]
    return parts


def decisions(result: Mapping[str, Mapping]) -> list[str]:
    rows = []
    for split, s in result.items():
        for confidence, d in s["decision_by_confidence"].items():
            rows.append(
                (
                    TITLES[split].lower(),
                    f"{float(confidence):.1f}" + (" (shipped)" if float(confidence) == CONFIDENCE else ""),
                    d["problems"],
                    f"{d['penalised_regret']:.1f}",
                    f"{d['violations']:.1f}",
                )
            )
    return [
        "## Decisions by confidence",
        prose(
            "`predicted_tpot_ms_safe` is the value not exceeded with this probability. More of it means fewer",
            "violations",
            "and more choices that are too careful.",
        ),
        table(("split", "confidence", "decisions", "regret, %", "violations, %"), rows, words=2),
    ]


def breakdowns(breakdown: Mapping[str, Mapping[str, Mapping]]) -> list[str]:
    heads = ("runs", "TPOT mean / median", "bias", "TTFT mean / median", "bias", "tokens/s/GPU mean / median", "holds")
    parts = ["## New configurations, part by part", "Percent; values with fewer than ten runs are not shown."]
    for column, values in breakdown.items():
        rows = []
        for value, s in values.items():
            errors = (pair([s[m]["mape"], s[m]["median"]]) for m in METRICS)
            tpot, ttft, throughput = errors
            holds = pair([s["interval"][m]["inside"] for m in ("tpot", "ttft")])
            bias = [f"{s[m]['bias']:+.1f}" for m in ("tpot", "ttft")]
            rows.append((value, s["rows"], tpot, bias[0], ttft, bias[1], throughput, holds))
        name = COLUMNS.get(column, column)
        parts += [f"### By {name}", table((name, *heads), rows)]
    return parts


# Where it is bad ------------------------------------------------------------------------------------------------------


def signed(rows: Sequence[Scored], metric: str) -> list[float]:
    """Signed errors in percent."""
    if metric == "tpot":
        return [100 * (r.predicted_tpot_ms / r.tpot_ms - 1) for r in rows]
    return [100 * (r.predicted_ttft_ms / r.ttft_ms - 1) for r in rows]


def short(key: Sequence[str]) -> str:
    """A deployment in a few words."""
    model, system, engine, precision, tp, dp, ep, pp, speculative = key
    sizes = {"TP": tp, "DP": dp, "EP": ep, "PP": pp}
    split = " ".join(f"{name}{size}" for name, size in sizes.items() if name == "TP" or size != "1")
    return f"{model.rpartition('/')[2]} {precision}, {system} {split}, {engine}" + (", MTP" if speculative else "")


def weaknesses(runs: Sequence[Measured], rows: Sequence[Scored]) -> list[str]:
    """The worst deployments, and what runs with large errors have in common."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        groups[tuple(run.row[c] for c in DEPLOYMENT)].append(i)
    errors = {m: signed(rows, m) for m in ("tpot", "ttft")}
    parts = [
        "## Where it is bad, and why",
        prose(
            "The deployments with the largest median errors as new configurations, of those with",
            f"{LEAST_RUNS} runs or more. *One-sided*: at nine loads in ten or more the error has the same sign, so",
            "that",
            "the deployment as a whole is faster or slower than its neighbours say; else it depends on the load.",
            "*Like runs*: of the same engine and model in other deployments, which is what a correction can learn",
            "from.",
        ),
    ]
    like = like_runs(runs)
    for m, all_errors in errors.items():
        found = []
        for key, members in groups.items():
            if len(members) < LEAST_RUNS:
                continue
            mine = [all_errors[i] for i in members]
            median, bias = statistics.median(map(abs, mine)), statistics.median(mine)
            slow = sum(e > 0 for e in mine) / len(mine)
            side = "too slow" if slow >= ONE_SIDED else "too fast" if slow <= 1 - ONE_SIDED else "no"
            found.append((-median, short(key), len(mine), f"{median:.1f}", f"{bias:+.1f}", side, like[key]))
        heads = (METRICS[m], "runs", "median error, %", "bias, %", "one-sided", "like runs")
        parts.append(table(heads, [row[1:] for row in sorted(found)[:WORST]]))
    parts += single(runs, rows, errors["tpot"], groups)
    parts += common(runs, errors)
    parts.append(REASONS)
    return parts


def single(
    runs: Sequence[Measured],
    rows: Sequence[Scored],
    errors: Sequence[float],
    groups: Mapping[tuple[str, ...], Sequence[int]],
) -> list[str]:
    """The runs whose TPOT is furthest off, beside the same deployment's nearest other loads with the same lengths."""
    found = []
    for i in sorted(range(len(runs)), key=lambda i: (-abs(errors[i]), i))[:SINGLE]:
        row = runs[i].row
        alike = [
            j
            for j in groups[tuple(row[c] for c in DEPLOYMENT)]
            if all(runs[j].row[c] == row[c] for c in ("isl", "osl")) and rows[j].concurrency != rows[i].concurrency
        ]
        alike.sort(key=lambda j: (abs(log10(rows[j].concurrency / rows[i].concurrency)), rows[j].concurrency, j))
        others = [f"{rows[j].tpot_ms:.1f} at {rows[j].concurrency}" for j in alike[:2]]
        what = (
            f"{short([row[c] for c in DEPLOYMENT])}, {row['isl']} / {row['osl']} tokens, {row['concurrency']} clients"
        )
        cells = (f"{rows[i].tpot_ms:.1f}", f"{rows[i].predicted_tpot_ms:.1f}", f"{errors[i]:+.0f}")
        found.append((what, *cells, ", ".join(others)))
    return [
        prose(
            "The single runs whose TPOT is furthest off, with what was measured at the nearest other loads. Some",
            "contradict their own deployment: a step does not take a fraction of its time for more clients.",
        ),
        table(("run", "measured, ms", "predicted, ms", "error, %", "measured at other loads, ms at clients"), found),
    ]


def like_runs(runs: Sequence[Measured]) -> dict[tuple[str, ...], int]:
    """Runs of the same engine and model in other deployments, by deployment."""
    own = Counter(tuple(r.row[c] for c in DEPLOYMENT) for r in runs)
    alike = Counter((r.row["engine"], r.row["model"]) for r in runs)
    return {key: alike[key[2], key[0]] - count for key, count in own.items()}


def common(runs: Sequence[Measured], errors: Mapping[str, Sequence[float]]) -> list[str]:
    """How the errors of runs with some trait differ from those of the others."""
    like = like_runs(runs)
    versions: dict[tuple[str, str, str], set[tuple[str, ...]]] = defaultdict(set)
    for r in runs:
        row = r.row
        versions[row["engine"], row["model"], row["engine_version"]].add(tuple(row[c] for c in DEPLOYMENT))

    def alone(row: Mapping[str, str]) -> bool:
        return len(versions[row["engine"], row["model"], row["engine_version"]]) == 1

    traits: dict[str, Callable[[Mapping[str, str]], bool]] = {
        "fewer than 20 like runs": lambda row: like[tuple(row[c] for c in DEPLOYMENT)] < 20,
        "engine version in no other deployment of the model": alone,
        "multi-token prediction": lambda row: row["speculative"] == "mtp",
        "attention DP": lambda row: row["dp"] != "1",
        "weights in four bits": lambda row: row["precision"] in FOUR_BITS,
        "prompts of 8,000 tokens or more": lambda row: int(row["isl"]) >= 8000,
        "at most 4 clients": lambda row: int(row["concurrency"]) <= 4,
        "256 clients or more": lambda row: int(row["concurrency"]) >= 256,
        **{f"on {name}, whose runs are not believed": lambda row, n=name: row["system"] == n for name in DISTRUSTED},
    }
    tenth = {m: set(sorted(range(len(e)), key=lambda i: (-abs(e[i]), i))[: len(e) // 10]) for m, e in errors.items()}
    table_rows = []
    for name, holds in traits.items():
        has = {i for i, r in enumerate(runs) if holds(r.row)}
        if not has:
            continue
        cells: list[str] = []
        for m, e in errors.items():
            inside = statistics.median(abs(e[i]) for i in has)
            others = [abs(e[i]) for i in range(len(e)) if i not in has]
            cells.append(f"{inside:.1f}" + (f" ({statistics.median(others):.1f})" if others else ""))
            cells.append(f"{100 * len(has & tenth[m]) / max(1, len(tenth[m])):.0f}")
        table_rows.append((name, f"{100 * len(has) / len(runs):.0f}", *cells))
    share = {m: 100 * sum(abs(e[i]) for i in tenth[m]) / sum(map(abs, e)) for m, e in errors.items()}
    heads = (
        "runs with", "of all, %", "TPOT median (others)", "of the worst tenth, %",
        "TTFT median (others)", "of the worst tenth, %",
    )  # fmt: skip
    return [
        prose(
            f"A tenth of the runs makes {share['tpot']:.0f}% of the mean error of TPOT and {share['ttft']:.0f}% of",
            "that of",
            "TTFT. A trait goes with large errors where its share of the worst tenth is above its share of all runs:",
        ),
        table(heads, table_rows),
    ]


REASONS = """\
What stands behind it, as far as it is known:

- *Settings that nobody recorded.* Chunk sizes, seats, the format of the KV cache, routing and flags of published runs
  are not in the tables. A deployment that ran with others than assumed is off at every load, in one direction; no
  model of the hardware can tell.
- *Versions.* Repeats of one run under several versions of an engine differ by 5.8% (mean) in TPOT and 16% in TTFT,
  twice as much as under one. The version is part of what makes runs neighbours; a version that no other run shares
  leaves the average of all.
- *TTFT under a burst.* All clients begin at once, and the mean over ten requests a client keeps what the first of them
  waited. With few clients it is mostly the host's time per request, with many it is the order in which prompts are
  admitted: small differences in a step's time move it by far more than TPOT.
- *Multi-token prediction.* How many tokens were drafted and how many accepted is not published; an average stands for
  both.
- *Models and accelerators without runs* have kernels and an engine's average alone, and wider intervals."""


# Scatter plots --------------------------------------------------------------------------------------------------------

SIZE, LEFT, BOTTOM, TOP, RIGHT = 560, 72, 58, 44, 20
STYLE = """\
.page{fill:#ffffff}.ink{fill:#1f2328}.grid{stroke:#d0d7de}.line{stroke:#1f2328}
text{font:13px system-ui,sans-serif}.small{font-size:11px}path{fill:none}
.dots{stroke-width:4;stroke-linecap:round;stroke-opacity:.6}
.vllm{stroke:#0969da}.trtllm{stroke:#2da44e}.sglang{stroke:#d1570b}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#e6edf3}.grid{stroke:#30363d}.line{stroke:#e6edf3}
.vllm{stroke:#58a6ff}.trtllm{stroke:#56d364}.sglang{stroke:#ffa657}}"""


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high; the powers alone where that would be more than nine."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    fine = [d * 10.0**p for p in powers for d in (1, 2, 5) if low <= d * 10.0**p <= high]
    return fine if len(fine) <= 9 else [10.0**p for p in powers if low <= 10.0**p <= high]


def scatter(runs: Sequence[Measured], rows: Sequence[Scored], metric: str) -> str:
    """Predicted against measured, milliseconds, both axes logarithmic and alike, as a standalone SVG."""
    points = [
        (run.row["engine"], getattr(r, f"{metric}_ms"), getattr(r, f"predicted_{metric}_ms"))
        for run, r in zip(runs, rows, strict=True)
    ]
    every = [v for _, measured, predicted in points for v in (measured, predicted)]
    low, high = min(every) / 1.15, max(every) * 1.15
    span = log10(high / low)
    name, side = METRICS[metric], SIZE - LEFT - RIGHT
    height = TOP + side + BOTTOM

    def x(value: float) -> float:
        return LEFT + side * log10(value / low) / span

    def y(value: float) -> float:
        return TOP + side * (1 - log10(value / low) / span)

    def line(ratio: float, dashes: str) -> str:
        start, end = max(low, low / ratio), min(high, high / ratio)
        place = f'x1="{x(start):.1f}" y1="{y(start * ratio):.1f}" x2="{x(end):.1f}" y2="{y(end * ratio):.1f}"'
        return f'<line class="line" {place}{dashes}/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {height}" width="{SIZE}" height="{height}" '
        'role="img">',
        f"<title>Predicted against measured {name} of {len(points):,} runs</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{SIZE}" height="{height}"/>',
    ]
    for tick in ticks(low, high):
        label = f"{tick:,.0f}" if tick >= 1 else f"{tick:g}"
        across, down = f"{x(tick):.1f}", f"{y(tick):.1f}"
        parts += [
            f'<path class="grid" d="M{across} {TOP}V{TOP + side}M{LEFT} {down}H{LEFT + side}"/>',
            f'<text class="ink small" x="{across}" y="{TOP + side + 16}" text-anchor="middle">{label}</text>',
            f'<text class="ink small" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    place = LEFT
    for engine in ENGINES:
        mine = sorted({f"M{x(a):.1f} {y(b):.1f}h.01" for e, a, b in points if e == engine})
        count = sum(e == engine for e, _, _ in points)
        if not count:
            continue
        parts += [
            f'<path class="dots {engine}" d="{"".join(mine)}"/>',
            f'<path class="dots {engine}" d="M{place + 5} {TOP - 16}h.01" style="stroke-width:9"/>',
            f'<text class="ink" x="{place + 14}" y="{TOP - 11}">{engine}, {count:,} runs</text>',
        ]
        place += 150
    parts += [line(1.0, ""), *(line(ratio, ' stroke-dasharray="5 4" opacity=".7"') for ratio in (1.2, 0.8))]
    middle = LEFT + side / 2
    parts += [
        f'<text class="ink" x="{middle}" y="{height - 14}" text-anchor="middle">measured mean {name}, ms</text>',
        f'<text class="ink" transform="translate(18 {TOP + side / 2}) rotate(-90)" text-anchor="middle">'
        f"predicted mean {name}, ms</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"

"""How far predictions are from measured runs they were not fitted on.

    python benchmarks/accuracy.py [RUNS.csv] [--json] [--page docs/accuracy.md]

Constants, corrections by neighbours and interval quantiles are those that all other groups give: groups are a
deployment with all its loads and versions ("new configuration"), a model, an accelerator. "Data sheet only" takes the
accelerator's kernel measurements away as well. Without RUNS.csv the runs shipped in benchmarks/data are used. Needs
the `rebuild` extra.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fit_engines import groups_of, load_processes, solve  # noqa: E402
from benchmarks.fitting.process import Problem  # noqa: E402
from benchmarks.fitting.runs import Measured, constants_of, read, simulate  # noqa: E402
from benchmarks.scoring import Scored, score  # noqa: E402

from trilemma.api.predicting import CONFIDENCE  # noqa: E402
from trilemma.catalogue import transfer  # noqa: E402
from trilemma.catalogue.figure import Source  # noqa: E402
from trilemma.sim.interval import DOUBT, Error  # noqa: E402
from trilemma.sim.neighbours import METRICS  # noqa: E402

SPLITS = {
    "new_configuration": "deployment",
    "new_model": "model",
    "new_accelerator": "system",
    "data_sheet_only": "system",
}
BREAKDOWNS = ("engine", "system", "precision", "concurrency", "model")
RUNS = Path(__file__).parent / "data" / "closed_loop_runs.csv"


@contextmanager
def unmeasured(accelerator: str) -> Iterator[None]:
    """As if no kernel of `accelerator` had been measured: its surfaces are out of sight."""
    shown = transfer.load_surfaces
    rest = {key: surface for key, surface in shown().items() if key[1] != accelerator}
    transfer.load_surfaces = lambda: rest
    transfer.forget()
    try:
        yield
    finally:
        transfer.load_surfaces = shown
        transfer.forget()


def data_sheet_residuals(path: Path, runs: list[Measured], problem: Problem) -> np.ndarray:
    """(n, 2) log of measured over simulated, every run without its own accelerator's kernels."""
    residual = problem.residual.copy()
    constants = constants_of(problem.logs)
    for system in sorted({r.configuration.accelerator.name for r in runs}):
        with unmeasured(system):
            again = [r for r in read(path) if r.columns is not None]
            mine = [i for i, r in enumerate(runs) if r.configuration.accelerator.name == system]
            simulated = simulate([again[i] for i in mine], constants)
        residual[mine] = problem.measured[mine] - simulated
    return residual


def quantiles_without(standardised: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n, 2) 10% and 90% quantiles of the standardised errors of all other groups, for every run."""
    out = np.empty((group.size, 2))
    for value in np.unique(group):
        out[group == value] = np.quantile(standardised[group != value], [0.1, 0.9])
    return out


def scored(runs: list[Measured], errors, deviations, quantiles, confidence: float) -> list[Scored]:
    """Measured runs beside their predictions; `errors` and the rest map metrics to (n,) or (n, 2)."""
    rows = []
    for i, run in enumerate(runs):
        r, c = run.row, run.configuration
        measured = {m: np.exp(run.measured[k]) * 1e3 for k, m in enumerate(METRICS)}
        estimate, margin = {}, {}
        for m in METRICS:
            error = Error(mean=0.0, deviation=float(deviations[m][i]), quantiles=tuple(quantiles[m][i]))
            estimate[m] = error.around(measured[m] * float(np.exp(-errors[m][i])))
            margin[m] = error.margin(confidence)
        rows.append(
            Scored(
                problem=(r["model"], r["system"], r["precision"], r["isl"], r["osl"]),
                configuration=(r["engine"], r["gpus"], r["tp"], r["dp"], r["ep"]),
                out=run.output_tokens,
                concurrency=c.concurrency,
                gpus=int(r["gpus"]),
                tpot_ms=measured["tpot"],
                ttft_ms=measured["ttft"],
                predicted_tpot_ms=estimate["tpot"].value,
                predicted_ttft_ms=estimate["ttft"].value,
                tpot_low_ms=estimate["tpot"].low,
                tpot_high_ms=estimate["tpot"].high,
                ttft_low_ms=estimate["ttft"].low,
                ttft_high_ms=estimate["ttft"].high,
                safe_ms=estimate["tpot"].value * margin["tpot"],
            )
        )
    return rows


def evaluate(path: Path) -> tuple[list[Measured], dict[str, list[Scored]], dict[str, dict[float, dict]]]:
    """The runs, their predictions under every split, and the decisions at several confidences."""
    runs = [r for r in read(path) if r.columns is not None]
    processes, groups = load_processes(), groups_of(runs)
    problem = solve(runs, processes)
    sheet = data_sheet_residuals(path, runs, problem)
    splits, choices = {}, {}
    for split, grouping in SPLITS.items():
        errors, deviations, quantiles = {}, {}, {}
        for k, metric in enumerate(METRICS):
            p = processes[metric]
            every = problem.left_out(k, p["deviations"], p["noise"], groups)
            error, deviation = every[grouping]
            if split == "data_sheet_only":
                error = error + sheet[:, k] - problem.residual[:, k]
                deviation = np.hypot(deviation, DOUBT[Source.DERIVED])
            errors[metric], deviations[metric] = error, deviation
            quantiles[metric] = quantiles_without(error / deviation, groups[grouping])
        splits[split] = scored(runs, errors, deviations, quantiles, CONFIDENCE)
        choices[split] = {
            c: score(scored(runs, errors, deviations, quantiles, c))["decision"] for c in (0.5, 0.6, 0.7, 0.8, 0.9)
        }
    return runs, splits, choices


def breakdown(runs: list[Measured], rows: list[Scored]) -> dict[str, dict[str, dict]]:
    """Scores by column and value."""
    out: dict[str, dict[str, dict]] = {}
    for column in BREAKDOWNS:
        values: dict[str, list[Scored]] = {}
        for run, row in zip(runs, rows, strict=True):
            values.setdefault(run.row[column], []).append(row)
        out[column] = {
            value: score(some)
            for value, some in sorted(values.items(), key=lambda x: (len(x[0]), x[0]))
            if len(some) >= 10
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="?", default=RUNS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page", type=Path)
    asked = parser.parse_args()
    if not asked.runs.is_file():
        parser.error(f"{asked.runs}: expected a CSV file of measured runs, found none")
    runs, splits, choices = evaluate(asked.runs)
    result = {split: score(rows) for split, rows in splits.items()}
    for split, scores in result.items():
        scores["decision_by_confidence"] = choices[split]
    if asked.page:
        from benchmarks.accuracy_page import page

        page(asked.page, runs, splits, result, breakdown(runs, splits["new_configuration"]))
    if asked.json:
        print(json.dumps(result, indent=1))
        return
    for split, s in result.items():
        cells = [f"{m} {s[m]['mape']:.1f}/{s[m]['median']:.1f}" for m in ("tpot", "ttft", "tok_s_per_gpu")]
        inside = ", ".join(f"{m} {s['interval'][m]['inside']:.0f}%" for m in METRICS)
        d = s["decision"]
        regret = f"regret {d['penalised_regret']:.1f}%, violations {d['violations']:.1f}%"
        print(f"{split}: {', '.join(cells)}; inside {inside}; {regret}")
        for confidence, other in choices[split].items():
            print(f"  at {confidence}: {other['penalised_regret']:.1f}%, {other['violations']:.1f}%")


if __name__ == "__main__":
    main()

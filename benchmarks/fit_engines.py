"""What engines add to their kernels, and what measured runs say of their neighbours, fitted through the simulator.

    python -m benchmarks.fit_engines RUNS.csv [--search ROUNDS] [--write]

RUNS.csv has one measured closed-loop configuration a row (columns of `trilemma predict`, plus ttft_ms and tpot_ms).
Every run is simulated by its engine's own scheduler at every step of the fit: burst, queueing behind prefills and
interference are in the residual as they are in the measurement. Constants are shrunk towards their priors, half of
what they deviate is shared by all engines; what they leave is the Gaussian process of sim.neighbours. --search also
looks for the process's deviations, by how well runs left out by deployment, model and accelerator are predicted.
--write writes data/efficiency.toml, data/residuals.csv and data/neighbours.toml. Needs the `rebuild` extra.
"""

import argparse
import csv
import sys
import tomllib
from pathlib import Path

import numpy as np
from benchmarks.fitting.process import Problem, search
from benchmarks.fitting.runs import CONSTANTS, DISTRUSTED, ENGINES, Measured, linearise, read, traits

from trilemma.sim.neighbours import DOUBLINGS, METRICS, NAMES

DATA = Path(__file__).parents[1] / "src" / "trilemma" / "catalogue" / "data"
# constant -> (prior, width of the prior in the logarithm). Few models are measured, and what fits some misleads on
# others: a constant has room only where runs of models left out are predicted better for it.
PRIORS = {
    "step_s": (2e-4, 0.1),
    "layer_s": (1.2e-5, 0.1),
    "moe_layer_s": (1e-5, 0.1),
    "prefill_layer_s": (2e-5, 0.1),
    "sequence_s": (1.5e-5, 0.1),
    "request_s": (2e-2, 0.2),
    "gemm": (1.0, 0.015),
    "expert": (1.0, 0.1),
    "expert_4bit": (1.0, 0.2),
    "attention": (1.0, 0.015),
    "prefill_attention": (1.0, 0.03),
    "collective": (1.0, 0.03),
    "prefill": (1.1, 0.05),
    "expert_prefill": (1.3, 0.1),
    "elementwise_passes": (12.0, 0.3),
    "mtp_tokens": (2.2, 0.15),
}
# How much predicting each kind of left-out run counts in the search.
IMPORTANCE = {"deployment": 1.0, "model": 1.0, "system": 0.5}
ROUNDS = 3  # of linearising and solving


def groups_of(runs: list[Measured]) -> dict[str, np.ndarray]:
    """What is left out together: a deployment (all its loads and versions), a model, an accelerator."""
    columns = {
        "deployment": ("model", "system", "engine", "precision", "tp", "dp", "ep", "pp", "speculative"),
        "model": ("model",),
        "system": ("system",),
    }
    out = {}
    for name, keys in columns.items():
        seen: dict[tuple[str, ...], int] = {}
        out[name] = np.array([seen.setdefault(tuple(r.row[k] for k in keys), len(seen)) for r in runs])
    return out


def load_processes() -> dict[str, dict]:
    """The shipped deviations."""
    return tomllib.loads((DATA / "neighbours.toml").read_text(encoding="utf-8"))


def problem_at(runs: list[Measured], logs: np.ndarray) -> Problem:
    """The runs under constants `logs`."""
    simulated, slopes = linearise(runs, logs)
    return Problem(
        traits=traits(runs),
        engine=np.array([ENGINES.index(r.configuration.engine.name) for r in runs]),
        logs=logs,
        simulated=simulated,
        slopes=slopes,
        measured=np.array([r.measured for r in runs]),
        prior=prior_logs(),
        width=np.array([PRIORS[name][1] for name in CONSTANTS]),
        distrusted=np.array([r.configuration.accelerator.name in DISTRUSTED for r in runs]),
    )


def prior_logs() -> np.ndarray:
    """(3, constants) logarithms of the priors, the same for every engine."""
    return np.tile(np.log([PRIORS[name][0] for name in CONSTANTS]), (len(ENGINES), 1))


def talk(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def error(left: np.ndarray) -> str:
    off = np.abs(np.exp(-left) - 1)
    return f"{100 * off.mean():.1f}/{100 * np.median(off):.1f}"


def solve(runs: list[Measured], processes: dict[str, dict]) -> Problem:
    """Constants by Gauss-Newton steps; the problem at the last of them, with what is distrusted."""
    logs, groups, inflated = prior_logs(), groups_of(runs), None
    for turn in range(ROUNDS + 1):
        problem = problem_at(runs, logs)
        if inflated is not None:
            problem.inflated = inflated
        trusted = ~problem.distrusted
        talk(
            f"constants {turn}: "
            + ", ".join(f"{m} {error(problem.residual[trusted, i])}" for i, m in enumerate(METRICS))
        )
        if turn == ROUNDS:
            return problem
        found = {}
        for i, metric in enumerate(METRICS):
            p = processes[metric]
            only = {"deployment": groups["deployment"]}
            found[i] = problem.left_out(i, p["deviations"], p["noise"], only)["deployment"]
        problem.distrust(found)
        inflated = problem.inflated
        simple = {m: (processes[m]["deviations"], processes[m]["noise"]) for m in METRICS}
        logs = problem.best_constants(simple)
    return problem


def quantiles_of(standardised: np.ndarray) -> list[float]:
    return [round(float(q), 3) for q in np.quantile(standardised, [0.1, 0.9])]


def write(runs: list[Measured], problem: Problem, processes: dict[str, dict], report: dict[str, str]) -> None:
    """The three data files."""
    head, _, _ = (DATA / "efficiency.toml").read_text(encoding="utf-8").partition("[engines.")
    engines = [
        f"[engines.{name}]\n" + "".join(f"{c} = {np.exp(v):.4g}\n" for c, v in zip(CONSTANTS, logs, strict=True))
        for name, logs in zip(ENGINES, problem.logs, strict=True)
    ]
    (DATA / "efficiency.toml").write_text(head + "\n".join(engines), encoding="utf-8")
    with (DATA / "residuals.csv").open("w", newline="", encoding="utf-8") as file:
        sheet = csv.writer(file, lineterminator="\n")
        sheet.writerow([*NAMES, *DOUBLINGS, *(f"{m}_{what}" for m in METRICS for what in ("log_ratio", "noise"))])
        for i in range(len(runs)):
            names = [problem.traits.names[n][i] for n in NAMES]
            sizes = [round(2 ** float(problem.traits.sizes[s][i])) for s in DOUBLINGS]
            numbers = []
            for k, metric in enumerate(METRICS):
                noise = processes[metric]["noise"] * np.sqrt(problem.inflated[i, k])
                numbers += [f"{problem.residual[i, k]:.4f}", f"{noise:.4f}"]
            sheet.writerow([*names, *sizes, *numbers])
    lines = [
        "# How measured runs of like configurations go together: standard deviations of log(measured / simulated) by",
        "# what two runs share and one run's noise; quantiles of runs left out. By benchmarks/fit_engines.py.",
        'source = "fitted"',
        'as_of = "2026-11-23"',
        'reference = "the runs behind efficiency.toml, left out by deployment, model and accelerator"',
    ]
    for metric in METRICS:
        p = processes[metric]
        lines += [
            "",
            f"[{metric}]",
            f"# {report[metric]}",
            f"noise = {p['noise']:.4f}",
            f"quantiles = {p['quantiles']}",
        ]
        lines += [f"[{metric}.deviations]"]
        lines += [f'"{term}" = {deviation:.4f}' for term, deviation in sorted(p["deviations"].items())]
    (DATA / "neighbours.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--search", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if not asked.runs.is_file():
        parser.error(f"{asked.runs}: expected a CSV file of measured runs, found none")
    runs = [r for r in read(asked.runs) if r.columns is not None]
    processes = load_processes()
    problem = solve(runs, processes)
    groups, report = groups_of(runs), {}
    for i, metric in enumerate(METRICS):
        p = processes[metric]
        if asked.search:
            p["deviations"], p["noise"] = search(
                problem, i, p["deviations"], p["noise"], groups=groups, importance=IMPORTANCE, rounds=asked.search
            )
            talk(f"{metric}: noise {p['noise']:.4f}, {p['deviations']}")
    if asked.search:
        problem = solve(runs, processes)
    trusted = ~problem.distrusted
    for i, metric in enumerate(METRICS):
        p = processes[metric]
        found = problem.left_out(i, p["deviations"], p["noise"], groups)
        standardised = np.concatenate([(e / d)[trusted] for e, d in found.values()])
        p["quantiles"] = quantiles_of(standardised)
        report[metric] = "mean/median error, %, of runs left out by " + ", ".join(
            f"{name} {error(e[trusted])}" for name, (e, _) in found.items()
        )
        talk(f"{metric}: {report[metric]}; quantiles {p['quantiles']}")
    for name, logs in zip(ENGINES, problem.logs, strict=True):
        talk(f"{name}: " + ", ".join(f"{c} {np.exp(v):.3g}" for c, v in zip(CONSTANTS, logs, strict=True)))
    if asked.write:
        write(runs, problem, processes, report)


if __name__ == "__main__":
    main()

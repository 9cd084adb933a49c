"""Watts and joules per token against measured runs.

    python benchmarks/energy_accuracy.py ENERGY_MEASURED_CSV [--json] [--prompts SCALE]

Each run's steps are priced by the latency model at the measured batch, their watts by the power model; joules per
output token are watts x GPUs x step / batch. Four columns of evidence:

    shipped   everything as it ships (catalogue/data/power.toml was fitted on these runs)
    power     shares of power fitted without the run's model
    host      the same, and the time a server's host adds to every step, to every sequence and, where experts are
              split, to every step again, fitted without the run's model, one set per accelerator
    timed     shares fitted without the run's model, at the measured step time: the power model alone

--prompts scales the lengths taken for prompts, which are not published. Needs the `rebuild` extra.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from fit_power import Run, left_out, read_runs, shares_of_time, shipped_states, watts
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.latency.energy import STATES, mean_watts, power_of


def host_features(runs: Sequence[Run]) -> np.ndarray:
    """(n, 3) what the host's seconds are charged on: the step, its sequences, a step with split experts."""
    return np.array([[1.0, run.batch / run.ranks, float(run.splits_experts)] for run in runs])


def fit_host(runs: Sequence[Run]) -> np.ndarray:
    """(3,) seconds by `host_features` that the latency model leaves out, by robust least squares on log time."""
    features, predicted_s = host_features(runs), np.array([run.state_s.sum() for run in runs])
    measured_s = np.array([run.step_s for run in runs])
    scale = np.array([1e-3, 1e-5, 1e-3])

    def residuals(x):
        return np.log((predicted_s + features @ (x * scale)) / measured_s)

    return least_squares(residuals, np.ones(3), loss="soft_l1", f_scale=0.1, bounds=(0.0, np.inf)).x * scale


def host_left_out(runs: Sequence[Run]) -> np.ndarray:
    """(n,) step times with the host's seconds, fitted without the run's model."""
    models = np.array([run.model for run in runs])
    step_s = np.array([run.state_s.sum() for run in runs])
    features = host_features(runs)
    for model in sorted(set(models)):
        out = models == model
        step_s[out] += features[out] @ fit_host([run for run in runs if run.model != model])
    return step_s


def predictions(runs: Sequence[Run]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Evidence -> ((n,) watts, (n,) step seconds) of one accelerator's runs."""
    gpu = runs[0].accelerator
    prior = shipped_states(gpu.name)
    ways, timed_w = left_out(runs, prior)
    predicted_s = np.array([run.state_s.sum() for run in runs])
    host_s = host_left_out(runs)

    def drawn(step_s: np.ndarray) -> np.ndarray:
        shares = shares_of_time(runs, step_s)
        return np.array([watts(s[None, :], w, gpu, prior.cap)[0] for s, w in zip(shares, ways, strict=True)])

    return {
        "shipped": (np.array([mean_watts(run.steps, gpu) for run in runs]), predicted_s),
        "power": (drawn(predicted_s), predicted_s),
        "host": (drawn(host_s), host_s),
        "timed": (timed_w, np.array([run.step_s for run in runs])),
    }


def errors(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    off = predicted / measured - 1
    return {
        "median_pct": 100 * float(np.median(np.abs(off))),
        "mean_pct": 100 * float(np.mean(np.abs(off))),
        "bias_pct": 100 * float(np.median(off)),
    }


def scores(runs: Sequence[Run], drawn_w: np.ndarray, step_s: np.ndarray) -> dict[str, dict[str, float]]:
    """Errors of watts per GPU, joules per output token and seconds per step."""
    batch, gpus = np.array([run.batch for run in runs]), np.array([run.gpus for run in runs])
    return {
        "watts": errors(drawn_w, np.array([run.watts for run in runs])),
        "joules_per_token": errors(drawn_w * gpus * step_s / batch, np.array([run.joules for run in runs])),
        "step_s": errors(step_s, np.array([run.step_s for run in runs])),
    }


def groups_of(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    labels = {"all": np.ones(len(runs), bool)}
    for kind in ("accelerator", "task"):
        values = [run.accelerator.name if kind == "accelerator" else run.task for run in runs]
        labels |= {value: np.array(values) == value for value in sorted(set(values))}
    return labels


def report(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Group -> evidence -> what -> errors in percent."""
    names = [run.accelerator.name for run in runs]
    together: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in sorted(set(names)):
        at = np.flatnonzero(np.array(names) == name)
        for evidence, (drawn_w, step_s) in predictions([runs[i] for i in at]).items():
            whole = together.setdefault(evidence, (np.zeros(len(runs)), np.zeros(len(runs))))
            whole[0][at], whole[1][at] = drawn_w, step_s
    return {
        group: {
            evidence: scores([run for run, chosen in zip(runs, within, strict=True) if chosen], w[within], s[within])
            for evidence, (w, s) in together.items()
        }
        for group, within in groups_of(runs).items()
    }


def show(runs: Sequence[Run], refused: dict[str, int]) -> None:
    models = sorted({run.model for run in runs})
    print(f"{len(runs)} runs of {len(models)} models priced, {sum(refused.values())} not:")
    for reason, count in refused.items():
        print(f"  {count:3} {reason}")
    print("\nerror in %: median / mean / bias (leave one model out but for shipped)")
    print(f"{'group':17}{'runs':>5}  {'evidence':9}{'watts':>20}{'joules per token':>22}{'step time':>20}")
    sizes = {group: int(within.sum()) for group, within in groups_of(runs).items()}
    for group, by_evidence in report(runs).items():
        for evidence, what in by_evidence.items():
            cells = (f"{e['median_pct']:6.1f} /{e['mean_pct']:6.1f} /{e['bias_pct']:+6.1f}" for e in what.values())
            print(f"{group:17}{sizes[group]:5}  {evidence:9}" + "  ".join(cells))
    print("\nhost seconds fitted on every run: a step, a sequence, a step with split experts; power shares as shipped")
    for name in sorted({run.accelerator.name for run in runs}):
        chosen = [run for run in runs if run.accelerator.name == name]
        step_s, sequence_s, split_s = fit_host(chosen)
        shares = power_of(chosen[0].accelerator)
        drawn = ", ".join(f"{state} {getattr(shares, state):.2f}" for state in STATES)
        print(f"{name}: {1e3 * step_s:.2f} ms, {1e6 * sequence_s:.1f} us, {1e3 * split_s:.2f} ms; {drawn}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--prompts", type=float, default=1.0)
    given = parser.parse_args()
    runs, refused = read_runs(given.file, load_catalogue(), prompt_scale=given.prompts)
    if given.json:
        print(json.dumps({"runs": len(runs), "not_priced": refused, "errors": report(runs)}, indent=1))
    else:
        show(runs, refused)


if __name__ == "__main__":
    main()

"""What engines add to their kernels, fitted end to end on measured closed-loop runs, through the simulator.

    python benchmarks/fit_engines.py RUNS.csv [ENGINE ...]

RUNS.csv has one measured configuration a row (columns of `trilemma predict`, plus ttft_ms and tpot_ms). Every row is
simulated by its engine's own scheduler at every step of the fit: burst, queueing behind prefills and interference are
in the residual as they are in the measurement. Twelve constants per engine, shrunk towards their priors in the
logarithm; robust loss, because some published rows are broken. The spreads come from models left out: fit on all
others, predict the left-out one.
Prints the rows of data/efficiency.toml. Needs the `rebuild` extra.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from trilemma.catalogue.catalogue import Catalogue, load_catalogue
from trilemma.catalogue.efficiency import efficiency_for
from trilemma.errors import TrilemmaError
from trilemma.sim.predict import Configuration, play

# constant -> (prior, width of the prior in the logarithm)
PRIORS = {
    "step_s": (1.0e-3, 0.7),
    "layer_s": (4e-6, 0.7),
    "sequence_s": (1e-5, 0.7),
    "request_s": (2e-2, 0.7),
    "gemm": (1.0, 0.1),
    "expert": (1.0, 0.1),
    "expert_4bit": (1.0, 0.4),
    "attention": (1.0, 0.1),
    "collective": (1.0, 0.2),
    "prefill": (1.0, 0.3),
    "elementwise_passes": (12.0, 0.2),
    "mtp_tokens": (1.8, 0.2),
}
# Times the root of the number of runs: one prior width off costs what an error of a few percent on every run does.
# Few models are measured, and what fits some misleads on others.
PRIOR_WEIGHT = 0.03
TTFT_WEIGHT = 0.4
SCALE = 0.08  # residuals beyond this count linearly


@dataclass(frozen=True)
class Row:
    configuration: Configuration
    ttft_s: float
    tpot_s: float
    out: float


def read(path: str, catalogue: Catalogue) -> list[Row]:
    rows = []
    with open(path, newline="") as f:
        for r in csv.DictReader(f):
            ratio = float(r["length_ratio_low"])
            model = catalogue.model(r["model"])
            c = Configuration(
                model=model, accelerator=catalogue.accelerator(r["system"]), engine=catalogue.engine(r["engine"]),
                precision=catalogue.precision(r["precision"]), isl=int(r["isl"]), osl=int(r["osl"]),
                concurrency=int(r["concurrency"]), tp=int(r["tp"]), dp=int(r["dp"]), ep=int(r["ep"]), pp=int(r["pp"]),
                ratio_low=ratio, speculative_mtp=r["speculative"] == "mtp",
            )  # fmt: skip
            rows.append(Row(c, float(r["ttft_ms"]) / 1e3, float(r["tpot_ms"]) / 1e3, int(r["osl"]) * (1 + ratio) / 2))
    return rows


def simulate(rows: Sequence[Row], constants: dict[str, float]) -> np.ndarray:
    """(n, 3) measured / predicted of TPOT, TTFT and throughput; NaN where a row cannot be predicted."""
    out = np.full((len(rows), 3), np.nan)
    for i, row in enumerate(rows):
        c = row.configuration
        efficiency = efficiency_for(c.accelerator, c.engine.name)
        efficiency = replace(efficiency, engine=replace(efficiency.engine, **constants))
        try:
            result, _ = play(c, efficiency)
        except TrilemmaError:
            continue
        predicted_s = result.ttft_s + result.tpot_s * (row.out - 1)
        measured_s = row.ttft_s + row.tpot_s * (row.out - 1)
        out[i] = row.tpot_s / result.tpot_s, row.ttft_s / result.ttft_s, predicted_s / measured_s
    return out


def robust(residual: np.ndarray) -> np.ndarray:
    """Residuals whose squares are the soft-L1 loss, so that broken rows pull little and priors stay plain squares."""
    scaled = residual / SCALE
    return np.sign(residual) * SCALE * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1))


def fit(rows: Sequence[Row]) -> dict[str, float]:
    names = list(PRIORS)
    prior = np.log([PRIORS[n][0] for n in names])
    width = np.array([PRIORS[n][1] for n in names])

    weight = PRIOR_WEIGHT * np.sqrt(len(rows))

    def residuals(x):
        ratio = np.log(simulate(rows, dict(zip(names, np.exp(x), strict=True))))
        ratio = np.nan_to_num(ratio)
        runs = robust(np.concatenate([ratio[:, 0], TTFT_WEIGHT * ratio[:, 1]]))
        return np.concatenate([runs, weight * (x - prior) / width])

    answer = least_squares(residuals, prior, diff_step=0.02, max_nfev=6)
    return dict(zip(names, np.exp(answer.x).tolist(), strict=True))


def error(ratio: np.ndarray) -> str:
    e = np.abs(1 / ratio - 1)
    return f"{100 * np.nanmean(e):.1f}% mean, {100 * np.nanmedian(e):.1f}% median"


def main() -> None:
    catalogue = load_catalogue()
    rows = read(sys.argv[1], catalogue)
    for engine in sys.argv[2:] or ("vllm", "trtllm", "sglang"):
        mine = [r for r in rows if r.configuration.engine.name == engine]
        constants = fit(mine)
        inside = simulate(mine, constants)
        left_out = np.full((len(mine), 3), np.nan)
        for name in sorted({r.configuration.model.name for r in mine}):
            index = np.array([r.configuration.model.name == name for r in mine])
            others = fit([r for r, out in zip(mine, index, strict=True) if not out])
            left_out[index] = simulate([r for r, out in zip(mine, index, strict=True) if out], others)
            print(
                f"# {engine} without {name}: TPOT {error(left_out[index, 0])}, TTFT {error(left_out[index, 1])}",
                file=sys.stderr,
            )
        print(f"\n[engines.{engine}]")
        for kind, ratios in (("fitted on them", inside), ("model left out", left_out)):
            print(
                f"# {len(mine)} runs, {kind}: TPOT {error(ratios[:, 0])}; TTFT {error(ratios[:, 1])}; "
                f"tokens/s {error(ratios[:, 2])}"
            )
        for name, value in constants.items():
            print(f"{name} = {value:.4g}")
        for column, name in enumerate(("tpot_spread", "ttft_spread", "throughput_spread")):
            low, high = np.nanquantile(left_out[:, column], [0.1, 0.9])
            print(f"{name} = [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()

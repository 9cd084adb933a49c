"""Measured closed-loop runs, simulated under any engine constants."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from trilemma.api.predicting import configuration_of
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.efficiency import EngineEfficiency
from trilemma.errors import TrilemmaError
from trilemma.latency.columns import Columns, tabulate
from trilemma.sim.engine import EngineLimits
from trilemma.sim.neighbours import Traits, traits_of
from trilemma.sim.predict import Configuration, Player, benchmark, deployment_of

ENGINES = ("vllm", "trtllm", "sglang")
CONSTANTS = tuple(f.name for f in fields(EngineEfficiency))
# GB200's rows are not to be believed: the same configuration takes up to thirteen times as long at two clients as at
# one, and a hundredth of the others' time to the first token at 448.
DISTRUSTED = ("gb200",)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured run and what it takes to simulate it again; `columns` None where it cannot be simulated."""

    row: Mapping[str, str]
    configuration: Configuration
    columns: Columns | None
    limits: EngineLimits | None
    seats: int
    budget: int

    @property
    def measured(self) -> tuple[float, float]:
        """log of mean TPOT and TTFT, seconds."""
        return float(np.log(float(self.row["tpot_ms"]) / 1e3)), float(np.log(float(self.row["ttft_ms"]) / 1e3))

    @property
    def output_tokens(self) -> float:
        """Mean length of an answer."""
        return int(self.row["osl"]) * (1 + float(self.row["length_ratio_low"])) / 2


def read(path: Path) -> list[Measured]:
    """The rows of a file with the columns of `trilemma predict`, plus ttft_ms and tpot_ms."""
    catalogue, player, found = load_catalogue(), Player(), []
    with path.open(newline="") as file:
        for i, row in enumerate(csv.DictReader(file)):
            configuration = configuration_of(row, catalogue, where=f"{path}:{i + 2}")
            try:
                steps, limits = player.prepare(configuration)
            except TrilemmaError:
                found.append(Measured(row, configuration, None, None, 0, 0))
                continue
            knobs = steps.deployment.knobs
            found.append(
                Measured(row, configuration, steps.columns, limits, knobs.max_num_seqs, knobs.max_num_batched_tokens)
            )
    return found


def simulate(runs: Sequence[Measured], constants: Mapping[str, EngineEfficiency]) -> np.ndarray:
    """(n, 2) log of simulated TPOT and TTFT in seconds; NaN where a run cannot be simulated."""
    out = np.full((len(runs), 2), np.nan)
    tables = {}
    for i, run in enumerate(runs):
        if run.columns is None:
            continue
        engine = constants[run.configuration.engine.name]
        key = (id(run.columns), run.budget, run.seats)
        if key not in tables:
            tables[key] = tabulate(run.columns, engine, max_num_batched_tokens=run.budget, max_num_seqs=run.seats)
        result = benchmark(run.configuration, tables[key], run.limits, engine)
        if result.run.timings.finished.any():
            out[i] = np.log(result.tpot_s), np.log(result.ttft_s)
    return out


def constants_of(logs: np.ndarray) -> dict[str, EngineEfficiency]:
    """(3, constants) logarithms -> the constants of each of ENGINES."""
    return {
        name: EngineEfficiency(**dict(zip(CONSTANTS, np.exp(logs[i]).tolist(), strict=True)))
        for i, name in enumerate(ENGINES)
    }


def linearise(runs: Sequence[Measured], logs: np.ndarray, *, change: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Simulated (n, 2) at `logs`, and (n, 2, constants) its change per change of the logarithm of each constant of the
    run's own engine."""
    base = simulate(runs, constants_of(logs))
    slopes = np.zeros((*base.shape, len(CONSTANTS)))
    for p in range(len(CONSTANTS)):
        moved = logs.copy()
        moved[:, p] += change
        slopes[:, :, p] = (simulate(runs, constants_of(moved)) - base) / change
    return base, slopes


def traits(runs: Sequence[Measured]) -> Traits:
    """What the runs share."""
    rows = []
    for run in runs:
        c = run.configuration
        load = {"isl": c.isl, "osl": c.osl, "concurrency": c.concurrency}
        rows.append(traits_of(deployment_of(c), **load, engine_version=c.engine_version or ""))
    return Traits.of(rows)

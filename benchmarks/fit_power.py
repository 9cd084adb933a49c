"""What GPUs draw by what they wait for: src/trilemma/catalogue/data/power.toml from measured kernels and serving runs.

    python benchmarks/fit_power.py FOLDER [OUTPUT]

FOLDER holds kernels/power.parquet (watts and latency of single kernels by shape on H200, B200, GB200),
energy_measured.csv (mean watts of steady vLLM runs on H100 and B200) and serving_amd.csv (serving runs on MI355X, some
with watts). Kernels say where streaming and launch-bound work lie between idle and the limit, and what the limit lets
through; the shares shipped are those under which the latency model's terms, in their shares of each run's measured step
time, draw what the run drew, pulled towards the kernels' shares. Only runs whose step time the latency model has right
within a fifth are used, so that a share is not bent to mend a time. MI355X has few runs of one model: the mean of H100
and B200, all shares by one factor. Run it again whenever the latency model changes. Needs the `rebuild` extra.
"""

import csv
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import least_squares

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import Catalogue, load_catalogue
from trilemma.catalogue.efficiency import efficiency_for
from trilemma.errors import TrilemmaError
from trilemma.latency.energy import CAP_SHARPNESS, STATES, time_by_state
from trilemma.latency.step import StepModel, StepTerms
from trilemma.sim.predict import Configuration, deployment_of

OUTPUT = Path(__file__).parents[1] / "src/trilemma/catalogue/data/power.toml"
AS_OF = "2026-11"
HEADER = f"""\
# What a GPU draws by what it waits for: shares of the way from idle to the power limit while streaming from HBM,
# multiplying, moving data over links, waiting. Written by benchmarks/fit_power.py; do not edit by hand. cap: what
# sustained work reaches, as a share of the limit. spread: 10% and 90% quantiles of measured / predicted watts, models
# left out. points: runs fitted on. kernels: what the fit was pulled towards.
as_of = "{AS_OF}"
reference = "kernel power tables of NVIDIA AIConfigurator (Apache-2.0); ML.ENERGY leaderboard v3; InferenceX (MI355X)"
"""

# Kernels -----------------------------------------------------------------------------------------------------------

# number format in the kernel tables -> (what it multiplies in, bytes per weight)
FORMATS = {
    "bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0), "fp8_block": ("fp8", 1.0), "nvfp4": ("fp4", 0.5625),
    "w4a16_mxfp4": ("bf16", 0.53125), "w4a8_mxfp4_mxfp8": ("fp8", 0.53125),
}  # fmt: skip
MEASURED_KERNELS = ("h200_sxm", "b200_sxm", "gb200")
PRIOR_OF = {"h100_sxm": "h200_sxm", "b200_sxm": "b200_sxm"}  # measured runs -> whose kernels
LONG_S = 5e-5  # shorter kernels' watts are averaged with the gaps between them


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStates:
    """Shares of the way from idle to the limit of streaming and of launch-bound kernels, and the cap."""

    hbm: float
    waiting: float
    cap: float

    def text(self, name: str) -> str:
        return f"\n[kernels.{name}]\nhbm = {self.hbm:.3f}\nwaiting = {self.waiting:.3f}\ncap = {self.cap:.3f}\n"


def kernel_states(path: Path, accelerators: Sequence[Accelerator]) -> dict[str, KernelStates]:
    """Of GEMMs and MoE kernels: attention kernels of the tables draw less than runs full of long attention do."""
    names = (
        "system", "op", "latency", "power", "m", "n", "k", "gemm_dtype", "num_tokens", "hidden_size", "inter_size",
        "topk", "num_experts", "moe_tp_size", "moe_ep_size", "moe_dtype",
    )  # fmt: skip
    table = pq.read_table(path, columns=list(names))
    column = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    found = {}
    for gpu in accelerators:
        parts = [_gemms(column, gpu), _experts(column, gpu)]
        memory_s, compute_s, measured_s, watts = (np.concatenate(part) for part in zip(*parts, strict=True))
        way = (watts - gpu.idle_w) / (gpu.tdp_w - gpu.idle_w)
        long = measured_s > LONG_S
        streaming = long & (memory_s > 0.5 * measured_s) & (memory_s > 2 * compute_s)
        multiplying = long & (compute_s > 0.5 * measured_s) & (compute_s > 2 * memory_s)
        launching = np.maximum(memory_s, compute_s) < 0.1 * measured_s
        found[gpu.name] = KernelStates(
            hbm=float(np.median(way[streaming])),
            waiting=max(0.0, float(np.median(way[launching]))),
            cap=float(np.median(watts[multiplying])) / gpu.tdp_w,
        )
    return found


def _formats(column, gpu: Accelerator, index) -> tuple[np.ndarray, np.ndarray]:
    peak = np.array([gpu.flops.get(FORMATS[kind][0], np.nan) for kind in column[index]])
    return peak, np.array([FORMATS[kind][1] for kind in column[index]])


def _gemms(column, gpu: Accelerator) -> tuple[np.ndarray, ...]:
    index = np.flatnonzero((column["system"] == gpu.name) & (column["op"] == "gemm"))
    peak, width = _formats(column["gemm_dtype"], gpu, index)
    m, n, k = (column[name][index].astype(float) for name in "mnk")
    memory_s = (n * k * width + m * k * width + m * n * 2) / gpu.hbm_bytes_per_s
    return _known(memory_s, 2 * m * n * k / peak, column, index)


def _experts(column, gpu: Accelerator) -> tuple[np.ndarray, ...]:
    index = np.flatnonzero((column["system"] == gpu.name) & (column["op"] == "moe"))
    peak, width = _formats(column["moe_dtype"], gpu, index)
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    tokens, hidden, inter, used, experts, tp, ep = (column[name][index].astype(float) for name in names)
    one = 3 * hidden * inter / tp
    touched = experts / ep * (1 - (1 - used / experts) ** tokens)
    moved = touched * one * width + tokens * used / ep * (2 * hidden + 3 * inter / tp) * 2
    return _known(moved / gpu.hbm_bytes_per_s, 2 * tokens * used / ep * one / peak, column, index)


def _known(memory_s, compute_s, column, index) -> tuple[np.ndarray, ...]:
    ok = np.isfinite(compute_s)
    return memory_s[ok], compute_s[ok], column["latency"][index][ok] / 1e3, column["power"][index][ok]


# Runs --------------------------------------------------------------------------------------------------------------

# Prompts are not published. Chat prompts carry their history, code completion the file around the gap; the lengths
# here make prefilling them take what the H100 runs' mean time per step exceeds their median by.
PROMPT_TOKENS = {"lm-arena-chat": 300, "gpqa": 250, "sourcegraph-fim": 1000}
MEAN_CONTEXT_SHARE = 0.75  # of the mean output, that a decode has behind it: 0.5 where all are equally long
PRECISIONS = {"bfloat16": "bf16"}
SERVING_PRECISIONS = {"fp4": "mxfp4"}  # on MI355X
MEAN_LENGTH_SHARE = 0.9  # lengths uniform in [0.8 L, L]
BATCHED_TOKENS = 8192  # the runs' max_num_batched_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A steady run: `batch` sequences decode at once on `gpus` GPUs, (n,) seconds of `steps` in the latency model.

    `watts` per GPU, `joules` per output token of the replica, `step_s` the mean time of a step, all measured;
    `steps` are (share of steps, terms): those that decode alone and those that prefill as well.
    """

    model: str
    task: str
    accelerator: Accelerator
    gpus: int
    ranks: int
    batch: float
    splits_experts: bool
    watts: float
    joules: float
    step_s: float
    steps: tuple[tuple[float, StepTerms], ...]

    @property
    def state_s(self) -> np.ndarray:
        """Predicted seconds of a mean step in each of STATES."""
        total = np.zeros(len(STATES))
        for share, terms in self.steps:
            total += share * np.array(list(time_by_state(terms).values()))
        return total


def read_runs(path: Path, catalogue: Catalogue, *, prompt_scale: float = 1.0) -> tuple[list[Run], dict[str, int]]:
    """Runs that the catalogue can price, and how many it cannot by reason."""
    runs, refused = [], {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                runs.append(_run(row, catalogue, prompt_scale))
            except TrilemmaError as error:
                reason = f"{row['model']}: {str(error).partition(',')[0]}"
                refused[reason] = refused.get(reason, 0) + 1
    return runs, refused


def _said(text: str, pattern: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no {pattern} in {text!r}")
    return float(match.group(1))


def _run(row: dict[str, str], catalogue: Catalogue, prompt_scale: float) -> Run:
    model = catalogue.model(row["model"])
    gpu = catalogue.accelerator(row["accelerator"])
    engine = catalogue.engine(row["engine"])
    task = re.search(r"task=([\w-]+)", row["notes"]).group(1)
    gpus, ranks = int(float(row["gpus"])), int(float(row["dp"]))
    batch = _said(row["concurrency_or_rate"], r"avg batch ([\d.]+)")
    prompt, output = PROMPT_TOKENS[task] * prompt_scale, float(row["osl"])
    configuration = Configuration(
        model=model,
        accelerator=gpu,
        engine=engine,
        precision=catalogue.precision(PRECISIONS.get(row["precision"], row["precision"]), model=model),
        isl=round(prompt),
        osl=round(output),
        concurrency=max(1, round(batch)),
        tp=gpus // ranks,  # the table's tp is 1 where experts are split: attention is split over the GPUs of a rank
        dp=ranks,
        ep=int(float(row["ep"])),
        max_num_batched_tokens=BATCHED_TOKENS,
    )
    model_steps = StepModel(deployment_of(configuration), efficiency_for(gpu, engine.name))
    return Run(
        model=model.name,
        task=task,
        accelerator=gpu,
        gpus=gpus,
        ranks=ranks,
        batch=batch,
        splits_experts=configuration.ep > 1,
        watts=float(row["power_w"]),
        joules=_said(row["notes"], r"energy_per_output_token_J=([\d.e+-]+)"),
        step_s=batch / float(row["tok_s_total_out"]),
        steps=steady_steps(model_steps, sequences=batch / ranks, prompt=prompt, output=output),
    )


def steady_steps(
    steps: StepModel, *, sequences: float, prompt: float, output: float
) -> tuple[tuple[float, StepTerms], ...]:
    """Steps of a full rank in the long run: every sequence that ends (one in `output` steps) lets a prompt in."""
    arrivals = sequences / output
    share = min(1.0, arrivals)
    prompts = arrivals / share
    decodes = max(1, round(sequences))
    decoding = {
        "decodes": decodes,
        "context_sum": round(decodes * (prompt + MEAN_CONTEXT_SHARE * output)),
    }
    alone = steps.terms(**decoding, sampling=decodes)
    mixed = steps.terms(
        **decoding,
        sampling=decodes + max(1, round(prompts)),
        prefill_tokens=max(1, round(prompts * prompt)),
        pair_sum=round(prompts * prompt * (prompt + 1)),
    )
    return (1 - share, alone), (share, mixed)


def shipped_states(accelerator: str) -> KernelStates:
    """The kernels' shares, from the shipped table, that an accelerator's runs are pulled towards."""
    return KernelStates(**tomllib.loads(OUTPUT.read_text(encoding="utf-8"))["kernels"][PRIOR_OF[accelerator]])


def read_serving(path: Path, catalogue: Catalogue) -> list[Run]:
    """Runs with watts of a serving benchmark, closed loop without speculation; `joules` is NaN where not recorded."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["power_w"] and "spec=mtp" not in row["notes"]]
    runs = []
    for row in rows:
        model = catalogue.model(row["model"])
        gpu, engine = catalogue.accelerator(row["accelerator"]), catalogue.engine(row["engine"])
        gpus, batch = int(float(row["gpus"])), float(row["concurrency_or_rate"])
        prompt, output = (MEAN_LENGTH_SHARE * float(row[name]) for name in ("isl", "osl"))
        configuration = Configuration(
            model=model,
            accelerator=gpu,
            engine=engine,
            precision=catalogue.precision(SERVING_PRECISIONS.get(row["precision"], row["precision"]), model=model),
            isl=round(prompt),
            osl=round(output),
            concurrency=int(batch),
            tp=gpus,
        )
        model_steps = StepModel(deployment_of(configuration), efficiency_for(gpu, engine.name))
        steps = steady_steps(model_steps, sequences=batch, prompt=prompt, output=output)
        mean_s = sum(share * terms.total_s for share, terms in steps)
        runs.append(
            Run(
                model=model.name, task="serving", accelerator=gpu, gpus=gpus, ranks=1, batch=batch,
                splits_experts=False, watts=float(row["power_w"]), joules=float("nan"),
                step_s=float(row["tpot_mean_ms"]) / 1e3 if row["tpot_mean_ms"] else mean_s, steps=steps,
            )
        )  # fmt: skip
    return runs


# The fit -----------------------------------------------------------------------------------------------------------

WITHIN = 0.2  # of the measured step time, on the logarithm
PULL = 0.1  # towards the kernels' shares: a share off by 1 weighs as much as 10% of watts
FLOPS_PRIOR, LINK_PRIOR = 1.3, 0.3  # what kernels cannot show: draw beyond the cap, collectives


def shares_of_time(runs: Sequence[Run], step_s: np.ndarray) -> np.ndarray:
    """(runs, states) shares of steps that take `step_s` (n,): what the terms leave over the GPU waits; where they
    take longer than the step they are scaled into it."""
    seconds = np.array([run.state_s for run in runs])
    total = seconds.sum(axis=1)
    shares = seconds / np.maximum(total, step_s)[:, None]
    shares[:, STATES.index("waiting")] += np.maximum(0.0, 1 - total / step_s)
    return shares


def watts(shares: np.ndarray, ways: np.ndarray, gpu: Accelerator, cap: float) -> np.ndarray:
    """As trilemma.latency.energy.PowerShares.watts, on arrays."""
    asked_w = gpu.idle_w + (gpu.tdp_w - gpu.idle_w) * (shares @ ways)
    return asked_w * (1 + (asked_w / (cap * gpu.tdp_w)) ** CAP_SHARPNESS) ** (-1 / CAP_SHARPNESS)


def well_timed(runs: Sequence[Run]) -> np.ndarray:
    """(n,) whether the latency model has a run's step time right."""
    return np.array([abs(np.log(run.state_s.sum() / run.step_s)) < WITHIN for run in runs])


def fit_shares(runs: Sequence[Run], prior: KernelStates) -> np.ndarray:
    """(states,) shares of one accelerator's runs, from measured step times."""
    gpu = runs[0].accelerator
    measured_s = np.array([run.step_s for run in runs])
    used = well_timed(runs)
    shares, drawn = shares_of_time(runs, measured_s)[used], np.array([run.watts for run in runs])[used]
    start = np.array([prior.hbm, FLOPS_PRIOR, LINK_PRIOR, prior.waiting])

    def residuals(ways):
        off = np.log(watts(shares, ways, gpu, prior.cap) / drawn)
        return np.concatenate([off, PULL * np.sqrt(max(1, used.sum())) * (ways - start)])

    return least_squares(residuals, start, loss="soft_l1", f_scale=0.1, bounds=(0.0, 3.0)).x


def left_out(runs: Sequence[Run], prior: KernelStates) -> tuple[np.ndarray, np.ndarray]:
    """((n, states) shares fitted without each run's model, (n,) watts they predict from measured step times)."""
    models = np.array([run.model for run in runs])
    ways, predicted = np.zeros((len(runs), len(STATES))), np.zeros(len(runs))
    shares = shares_of_time(runs, np.array([run.step_s for run in runs]))
    for model in sorted(set(models)):
        out = models == model
        ways[out] = fit_shares([run for run in runs if run.model != model], prior)
        predicted[out] = watts(shares[out], ways[np.flatnonzero(out)[0]], runs[0].accelerator, prior.cap)
    return ways, predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One accelerator's row of the table."""

    ways: np.ndarray
    cap: float
    spread: tuple[float, float]
    source: str
    points: int
    note: str

    def text(self, name: str) -> str:
        ways = "\n".join(f"{state} = {way:.3f}" for state, way in zip(STATES, self.ways, strict=True))
        return (
            f"\n[{name}]\n{ways}\ncap = {self.cap:.3f}\nspread = [{self.spread[0]:.2f}, {self.spread[1]:.2f}]\n"
            f'source = "{self.source}"\npoints = {self.points}\nnote = "{self.note}"\n'
        )


def fitted_row(runs: Sequence[Run], prior: KernelStates) -> Row:
    _, predicted = left_out(runs, prior)
    low, high = np.percentile(np.array([run.watts for run in runs]) / predicted, [10, 90])
    return Row(
        ways=fit_shares(runs, prior), cap=prior.cap, spread=(low, high), source="fitted",
        points=int(well_timed(runs).sum()), note="",
    )  # fmt: skip


def carried(row: Row, *, hbm: float, cap: float, note: str) -> Row:
    """A relative's row with another share of streaming, and twice the spread for having been carried."""
    ways = row.ways.copy()
    ways[STATES.index("hbm")] = min(hbm, ways[STATES.index("flops")])
    spread = (1 - 2 * (1 - row.spread[0]), 1 + 2 * (row.spread[1] - 1))
    return replace(row, ways=ways, cap=cap, spread=spread, source="derived", points=0, note=note)


def rows_of(kernels: dict[str, KernelStates], runs: Sequence[Run], gpus: dict[str, Accelerator]) -> dict[str, Row]:
    """H100 and B200 fitted on their runs. H200, the same die and limit with faster memory, streams at H100's energy per
    byte; GB200 as its kernels do beside B200's: nearly the same share of a higher limit, so B300 and GB300 take B200's.
    """
    hopper, blackwell = (
        fitted_row([run for run in runs if run.accelerator.name == name], kernels[prior])
        for name, prior in PRIOR_OF.items()
    )
    at = STATES.index("hbm")
    faster = gpus["h200_sxm"].hbm_bytes_per_s / gpus["h100_sxm"].hbm_bytes_per_s
    gb200 = kernels["gb200"].hbm / kernels["b200_sxm"].hbm
    return {
        "h100_sxm": hopper,
        "h200_sxm": carried(
            hopper, hbm=hopper.ways[at] * faster, cap=kernels["h200_sxm"].cap,
            note="runs on H100, streaming at the same energy per byte",
        ),
        "b200_sxm": blackwell,
        "gb200": carried(
            blackwell, hbm=blackwell.ways[at] * gb200, cap=kernels["gb200"].cap,
            note="runs on B200, streaming as its kernels do beside those of B200",
        ),
    }  # fmt: skip


def mean_row(rows: Sequence[Row]) -> Row:
    """For accelerators of other families: the mean of the fitted ones."""
    mean = Row(
        ways=np.mean([row.ways for row in rows], axis=0),
        cap=float(np.mean([row.cap for row in rows])),
        spread=(min(row.spread[0] for row in rows), max(row.spread[1] for row in rows)),
        source="guess",
        points=0,
        note="mean of H100 and B200",
    )
    wider = carried(mean, hbm=float(mean.ways[STATES.index("hbm")]), cap=mean.cap, note=mean.note)
    return replace(wider, source="guess")


def scaled_row(mean: Row, runs: Sequence[Run]) -> Row:
    """`mean` with all shares times one factor, fitted on few runs; spread with each run left out in turn."""
    gpu = runs[0].accelerator
    shares = shares_of_time(runs, np.array([run.step_s for run in runs]))
    drawn = np.array([run.watts for run in runs])

    def factor(chosen: np.ndarray) -> float:
        def off(x):
            return np.log(watts(shares[chosen], x[0] * mean.ways, gpu, mean.cap) / drawn[chosen])

        return float(least_squares(off, [1.0], loss="soft_l1", f_scale=0.1, bounds=(0.1, 2.0)).x[0])

    n = np.arange(len(runs))
    ratio = [drawn[i] / watts(shares[[i]], factor(n != i) * mean.ways, gpu, mean.cap)[0] for i in n]
    print(
        f"{gpu.name}: factor {factor(n >= 0):.2f}, median error {100 * np.median(np.abs(1 / np.array(ratio) - 1)):.1f}%"
    )
    low, high = np.percentile(ratio, [10, 90])
    return Row(
        ways=factor(n >= 0) * mean.ways, cap=mean.cap, spread=(low, high), source="fitted", points=len(runs),
        note="the mean of H100 and B200 times one factor",
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    folder = Path(arguments[0])
    catalogue = load_catalogue()
    kernels = kernel_states(
        folder / "kernels/power.parquet", [catalogue.accelerator(name) for name in MEASURED_KERNELS]
    )
    for name, states in kernels.items():
        print(f"{name}: streaming {states.hbm:.2f}, launch-bound {states.waiting:.2f}, cap {states.cap:.3f}")
    runs, refused = read_runs(folder / "energy_measured.csv", catalogue)
    print(f"{len(runs)} runs, {sum(refused.values())} left out")
    rows = rows_of(kernels, runs, dict(catalogue.accelerators))
    mean = mean_row([rows["h100_sxm"], rows["b200_sxm"]])
    rows["mi355x"] = scaled_row(mean, read_serving(folder / "serving_amd.csv", catalogue))
    parts = [HEADER, '\n[families]\nhopper = "h100_sxm"\nblackwell = "b200_sxm"\n']
    parts += [states.text(name) for name, states in kernels.items()]
    parts += [row.text(f"accelerators.{name}") for name, row in rows.items()]
    parts.append(mean.text("mean"))
    output = Path(arguments[1]) if len(arguments) == 2 else OUTPUT
    output.write_text("".join(parts), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main(sys.argv[1:])

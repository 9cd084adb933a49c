"""Runs of DeepSeek-R1 on MI300X, MI325X and MI355X against predictions, and the constants of their families.

    python benchmarks/ground/amd.py SERVING_AMD.csv [--since 2026-01-01] [--blind] [--write] [--json] [--rows ROWS.csv]

Every configuration is simulated in closed loop as benchmarks are (lengths uniform in [0.8 L, L], ten requests a
client, outputs forced) and corrected by measured runs of its neighbours, as predictions are. No kernels of these
accelerators are measured, a relative's are used. What is left over is taken to be

- `slower`, by family and form of the kernels: every kernel takes so much longer than the relative's,
- `layer_s`, by family and form, in place of the engine's: between December 2025 and May 2026 the same configuration
  became up to three times as fast, by about the same milliseconds a step at any batch. Kernels of the form are at
  fault, not the host: other models have nothing like it. Runs before 2026 have a `layer_s` of their own, unless
  --blind,
- `request_s`, by family, in place of the engine's.

Fitted on TPOT and TTFT by robust least squares, shrunk towards the relative's kernels and usual overheads, and
cross-validated by leaving groups of configurations out (accelerator, engine, format, MTP, parallelism, lengths: all
concurrencies and dates together). Columns without a prefix are what the product predicts as shipped, `plain` has no
family constants, `cv` constants that the run's group had no part in. --write writes what is fitted to efficiency.toml;
run it after fit_engines.py, whose constants it builds on.

TPOT is the mean over requests where the table has it, else the median (they differ by 0.1%); TTFT is the median: means
hold the initial burst, and most rows have none.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from measured import Row, arguments, errors, grouped, number, read_csv, show, write_rows
from scipy.optimize import least_squares
from scipy.sparse import lil_matrix

from trilemma.catalogue.catalogue import Catalogue, load_catalogue
from trilemma.catalogue.efficiency import Efficiency, engine_efficiency
from trilemma.catalogue.precision import Role
from trilemma.errors import TrilemmaError
from trilemma.latency.columns import Columns, tabulate
from trilemma.latency.formats import kernel_form
from trilemma.latency.step import StepModel
from trilemma.sim.benchmark import closed_loop
from trilemma.sim.engine import EngineLimits
from trilemma.sim.neighbours import Traits, load_neighbours, traits_of
from trilemma.sim.predict import Configuration, Player, typical_of

FILE = Path(__file__).parents[2] / "src" / "trilemma" / "catalogue" / "data" / "efficiency.toml"
NAMES = ("tpot_s", "ttft_s")
MODEL = "deepseek-ai/DeepSeek-R1-0528"
LENGTH_RATIO = 0.8  # InferenceX's --random-range-ratio
FOLDS = 5
TTFT_WEIGHT = 0.25
SCALE = 0.1  # residuals beyond this count linearly
EVALUATIONS = 8
BROKEN = ("CHECK_LITTLE", "RECONSTRUCTED", "assumed", "inferred")  # rows whose notes say so are left out
ENGINES = {"atom": "sglang"}  # not in the catalogue -> who stands in
PRECISIONS = {"fp4": "mxfp4", "fp8": "fp8"}  # the table's word -> the catalogue's
FORMS = {"fp4": "nvfp4", "fp8": "fp8_block"}  # the table's word -> the form of the experts' kernels
FAMILIES = {"mi300x": "cdna3", "mi325x": "cdna3", "mi355x": "cdna4"}
SOFTWARE = "2026-01-01"  # from this day on runs count as those of today's software
# constant -> (prior, width of the prior in the logarithm)
PRIORS = {"slower": (1.0, 0.3), "layer_s": (2e-5, 1.0), "request_s": (2e-2, 0.7)}
PRIOR_WEIGHT = 0.02
DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run."""

    accelerator: str
    engine: str
    precision: str
    mtp: bool
    tp: int
    isl: int
    osl: int
    concurrency: int
    date: str
    version: str
    old: bool
    tpot_s: float
    ttft_s: float

    @property
    def configuration(self) -> tuple[str, str, str, bool, int, int, int, int]:
        """What is simulated."""
        return (*self.group, self.concurrency)

    @property
    def constants(self) -> dict[str, str]:
        """Field of `Constants` -> name of the constant that this run has."""
        family = FAMILIES[self.accelerator]
        return {
            "slower": f"slower {family} {FORMS[self.precision]}",
            "layer_s": f"layer_s {family} {FORMS[self.precision]}" + (" before" if self.old else ""),
            "request_s": f"request_s {family}",
        }

    @property
    def group(self) -> tuple[str, str, str, bool, int, int, int]:
        """What is left out together."""
        return self.accelerator, self.engine, self.precision, self.mtp, self.tp, self.isl, self.osl


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Those of a family that one run has; None: the engine's own."""

    slower: float = 1.0
    layer_s: float | None = None
    request_s: float | None = None


def runs(rows: Sequence[dict[str, str]], since: str, *, blind: bool) -> list[Measured]:
    """The table's rows from `since` on that are neither disaggregated nor with attention DP. `blind`: all of them count
    as runs of today's software."""
    found = []
    for r in rows:
        flags = dict(part.split("=", 1) for part in r["notes"].split("; ") if "=" in part)
        broken = any(word in r["notes"] for word in BROKEN)
        if broken or r["date"] < since or flags.get("disagg") == "True" or flags.get("dp_attn") == "True":
            continue
        mean = number(r["tpot_mean_ms"])
        found.append(
            Measured(
                accelerator=r["accelerator"],
                engine=r["engine"],
                precision=r["precision"],
                mtp=flags.get("spec") == "mtp",
                tp=int(number(r["tp"])),
                isl=int(number(r["isl"])),
                osl=int(number(r["osl"])),
                concurrency=int(number(r["concurrency_or_rate"])),
                date=r["date"],
                version=r["engine_version"],
                old=not blind and r["date"] < SOFTWARE,
                tpot_s=(mean if mean > 0 else number(r["tpot_p50_ms"])) / 1e3,
                ttft_s=number(r["ttft_p50_ms"]) / 1e3,
            )
        )
    return found


@cache
def _catalogue() -> Catalogue:
    return load_catalogue()


@dataclass(frozen=True, kw_only=True)
class Base:
    """A configuration, its kernels as the relative has them, its scheduler, and the corrections of TPOT and TTFT."""

    configuration: Configuration
    columns: Columns
    limits: EngineLimits
    corrections: tuple[float, float]
    shipped: Efficiency


@cache
def _player() -> Player:
    return Player()


@cache
def base(key: tuple[str, str, str, bool, int, int, int, int]) -> Base:
    """What is needed to simulate a configuration; UnsupportedError where it does not run."""
    accelerator, engine, precision, mtp, tp, isl, osl, concurrency = key
    catalogue = _catalogue()
    model = catalogue.model(MODEL)
    c = Configuration(
        model=model,
        accelerator=catalogue.accelerator(accelerator),
        engine=catalogue.engine(ENGINES.get(engine, engine)),
        precision=catalogue.precision(PRECISIONS[precision], model=model),
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        tp=tp,
        ratio_low=LENGTH_RATIO,
        speculative_mtp=mtp,
    )
    assert kernel_form(c.precision, Role.EXPERT, model, c.accelerator) == FORMS[precision]
    steps, limits = _player().prepare(c)
    plain = replace(steps.efficiency, engine=engine_efficiency(c.engine.name), slower=1.0)
    traits = traits_of(steps.deployment, isl=isl, osl=osl, concurrency=concurrency)
    found = load_neighbours().correct(Traits.of([traits]))
    return Base(
        configuration=c,
        columns=StepModel(steps.deployment, plain, typical_of(c)).columns,
        limits=limits,
        corrections=(float(np.exp(found["tpot"].mean[0])), float(np.exp(found["ttft"].mean[0]))),
        shipped=steps.efficiency,
    )


def stretched(columns: Columns, slower: float) -> Columns:
    """Columns whose kernels take `slower` times as long."""
    kernels = ("GEMMs", "experts", "collectives")
    return replace(
        columns,
        by_tokens={n: slower * s if n in kernels else s for n, s in columns.by_tokens.items()},
        prefilling=columns.prefilling.times(slower),
        head_s=slower * columns.head_s,
        draft_s=slower * columns.draft_s,
        decoding=columns.decoding.times(slower),
    )


def shipped(key: tuple[str, str, str, bool, int, int, int, int]) -> Constants:
    """What efficiency.toml says."""
    found = base(key).shipped
    return Constants(slower=found.slower, layer_s=found.engine.layer_s, request_s=found.engine.request_s)


@cache
def predicted(key: tuple[str, str, str, bool, int, int, int, int], constants: Constants) -> tuple[float, float]:
    """Mean TPOT and median TTFT, seconds, corrected."""
    b = base(key)
    c = b.configuration
    engine = engine_efficiency(c.engine.name)
    engine = replace(
        engine,
        layer_s=engine.layer_s if constants.layer_s is None else constants.layer_s,
        request_s=engine.request_s if constants.request_s is None else constants.request_s,
    )
    table = tabulate(
        stretched(b.columns, constants.slower),
        engine,
        max_num_batched_tokens=b.limits.max_num_batched_tokens,
        max_num_seqs=b.limits.max_num_seqs,
    )
    result = closed_loop(
        table,
        b.limits,
        engine,
        isl=c.isl,
        osl=c.osl,
        concurrency=c.concurrency,
        ratio_low=LENGTH_RATIO,
        tokens_per_step=engine.mtp_tokens if c.speculative_mtp else 1.0,
    )
    ttft_s = float(np.nanmedian(result.run.timings.ttft_s)) + engine.request_s
    return result.tpot_s * b.corrections[0], ttft_s * b.corrections[1]


def prior_of(name: str) -> tuple[float, float]:
    """Logarithm of a constant's prior, and its width."""
    prior, width = PRIORS[name.split(maxsplit=1)[0]]
    return float(np.log(prior)), width


class Fit:
    """Constants of some runs: names, logarithms, and what they make of any run."""

    def __init__(self, runs: Sequence[Measured]) -> None:
        self.names = sorted({name for m in runs for name in m.constants.values()})
        self.index = {name: i for i, name in enumerate(self.names)}
        self.prior, self.width = np.array([prior_of(name) for name in self.names]).T
        self.values = self.prior.copy()
        self._solve(runs)

    def constants(self, m: Measured, values: np.ndarray | None = None) -> Constants:
        """A run's constants; the prior where none was fitted."""
        values = self.values if values is None else values
        return Constants(
            **{
                field: float(np.exp(values[self.index[name]] if name in self.index else prior_of(name)[0]))
                for field, name in m.constants.items()
            }
        )

    def shown(self) -> dict[str, float]:
        """Name -> value: factors and seconds."""
        return {name: float(f"{np.exp(v):.{DIGITS}g}") for name, v in zip(self.names, self.values, strict=True)}

    def _solve(self, runs: Sequence[Measured]) -> None:
        alike: dict[tuple, list[Measured]] = {}
        for m in runs:
            alike.setdefault((m.configuration, m.old), []).append(m)
        kinds = list(alike.values())
        rows = sum(map(len, kinds))
        weight = PRIOR_WEIGHT * np.sqrt(rows)
        # Each residual depends on a run's own constants: few simulations for a Jacobian.
        sparsity = lil_matrix((2 * rows + len(self.names), len(self.names)))
        at = 0
        for kind in kinds:
            for _ in kind:
                for name in kind[0].constants.values():
                    sparsity[2 * at : 2 * at + 2, self.index[name]] = 1
                at += 1
        for i in range(len(self.names)):
            sparsity[2 * rows + i, i] = 1

        def residuals(values: np.ndarray) -> np.ndarray:
            left = []
            for kind in kinds:
                tpot_s, ttft_s = predicted(kind[0].configuration, self.constants(kind[0], values))
                for m in kind:
                    left += [np.log(m.tpot_s / tpot_s), TTFT_WEIGHT * np.log(m.ttft_s / ttft_s)]
            error = np.array(left) / SCALE
            robust = np.sign(error) * SCALE * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
            return np.concatenate([robust, weight * SCALE * (values - self.prior) / self.width])

        answer = least_squares(
            residuals, self.values, jac_sparsity=sparsity, diff_step=0.02, x_scale=self.width, max_nfev=EVALUATIONS
        )
        self.values = answer.x


def row_of(m: Measured, values: dict[str, tuple[float, float]]) -> Row:
    """Measured and predicted by each of `values` (suffix: TPOT and TTFT)."""
    row: Row = {
        "accelerator": m.accelerator, "engine": m.engine, "precision": m.precision, "mtp": m.mtp, "tp": m.tp,
        "isl": m.isl, "osl": m.osl, "concurrency": m.concurrency, "date": m.date, "version": m.version,
        "software": "before 2026" if m.old or m.date < SOFTWARE else "2026",
    }  # fmt: skip
    for suffix, (tpot_s, ttft_s) in values.items():
        for name, measured_s, predicted_s in (("tpot_s", m.tpot_s, tpot_s), ("ttft_s", m.ttft_s, ttft_s)):
            row[f"measured_{suffix}{name}"] = measured_s
            row[f"predicted_{suffix}{name}"] = predicted_s
    return row


def cross_validated(found: Sequence[Measured]) -> list[tuple[float, float]]:
    """(n,) TPOT and TTFT of every run by constants that its group had no part in."""
    groups = sorted({m.group for m in found})
    order = np.random.default_rng(0).permutation(len(groups))
    fold_of = {groups[g]: int(i % FOLDS) for i, g in enumerate(order)}
    fits = {fold: Fit([m for m in found if fold_of[m.group] != fold]) for fold in range(FOLDS)}
    answers = {}
    for m in found:
        c = fits[fold_of[m.group]].constants(m)
        if (m.configuration, c) not in answers:
            answers[m.configuration, c] = predicted(m.configuration, c)
    return [answers[m.configuration, fits[fold_of[m.group]].constants(m)] for m in found]


def write(fit: Fit, found: Sequence[Measured], errors_of: Mapping[str, float]) -> None:
    """The families' part of efficiency.toml; `errors_of` maps them to the mean error of TPOT left out, percent."""
    head, _, rest = FILE.read_text(encoding="utf-8").partition("[families]\n")
    engines = rest[rest.index("[engines.") :]
    values = fit.shown()
    lines = [
        "[families]",
        "# No measured kernels: a relative's times `slower`; request_s, and layer_s where kernels are of a form, in",
        "# place of the engine's (nvfp4: any FP4, MXFP4 here). Written by benchmarks/ground/amd.py.",
        "",
    ]
    for family in sorted(set(FAMILIES.values())):
        mine = [m for m in found if FAMILIES[m.accelerator] == family and m.date >= SOFTWARE]
        names = " and ".join(a.upper() for a in sorted({m.accelerator for m in mine}))
        engines_of = " and ".join(e.upper() for e in sorted({m.engine for m in mine})).replace("SGLANG", "SGLang")
        forms = sorted({FORMS[m.precision] for m in mine})
        usual = np.exp(np.mean([np.log(values[f"slower {family} {form}"]) for form in forms]))
        lines += [
            f"[families.{family}]",
            f'note = "constants from runs of DeepSeek-R1 on {names}"',
            f'reference = "{len(mine)} runs of DeepSeek-R1-0528 on {names} under {engines_of}, InferenceX dashboard, '
            f"{min(m.date for m in mine)} to {max(m.date for m in mine)}; TPOT of configurations left out: "
            f'{errors_of[family]:.0f}% mean error"',
            f"slower = {usual:.{DIGITS}g}",
            f"request_s = {values[f'request_s {family}']}",
            "",
        ]
        for form in forms:
            lines += [f"[families.{family}.forms.{form}]"]
            lines += [f"{field} = {values[f'{field} {family} {form}']}" for field in ("slower", "layer_s")]
            lines += [""]
    FILE.write_text(head + "\n".join(lines) + "\n" + engines, encoding="utf-8")


def main() -> None:
    options = arguments(
        "DeepSeek-R1 on AMD accelerators against predictions.",
        since={"default": "", "help": "runs from this day on, YYYY-MM-DD"},
        blind={"action": "store_true", "help": "one layer_s for the software of all dates"},
        write={"action": "store_true", "help": "write the families' constants to efficiency.toml"},
    )
    began_s = time.perf_counter()
    found, reasons = [], {}
    for m in runs(read_csv(options.files[0]), options.since, blind=options.blind):
        try:
            base(m.configuration)
            found.append(m)
        except TrilemmaError as error:
            reasons[str(error)] = reasons.get(str(error), 0) + 1
    rows = [
        row_of(
            m,
            {
                "": predicted(m.configuration, shipped(m.configuration)),
                "plain_": predicted(m.configuration, Constants()),
                "cv_": held_out,
            },
        )
        for m, held_out in zip(found, cross_validated(found), strict=True)
    ]
    fit = Fit(found)
    names = [f"{prefix}{name}" for prefix in ("", "plain_", "cv_") for name in NAMES]
    write_rows(options.rows, rows)
    by = {f"by {column}": lambda row, column=column: row[column] for column in
          ("software", "accelerator", "engine", "precision", "mtp", "concurrency", "tp")}  # fmt: skip
    by["by lengths"] = lambda row: f"{row['isl']}/{row['osl']}"
    by["by accelerator and month"] = lambda row: f"{row['accelerator']} {row['date'][:7]}"
    more = {"rows that cannot be predicted": reasons, "constants fitted on all rows": fit.shown()}
    tables = grouped(rows, names, by)
    show(tables, as_json=options.json, more=more)
    if options.write:
        now = {
            family: [r for r in rows if r["software"] == "2026" and FAMILIES[r["accelerator"]] == family]
            for family in set(FAMILIES.values())
        }
        write(fit, found, {family: errors(r, ["cv_tpot_s"])["cv_tpot_s_mape"] for family, r in now.items()})
    print(f"{len(rows)} runs in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

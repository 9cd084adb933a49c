"""People and machine time that make a deployment run: weeks of tuning, upkeep, benchmarking."""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cache

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Effort, Topology
from trilemma.catalogue.model import Model
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.precision import Precision
from trilemma.cost.fleet import Fleet
from trilemma.cost.lines import Dimension, Line, cite, cite_rates, dollars, number
from trilemma.cost.money import WEEKS_PER_YEAR, energy_usd_per_h, spread_usd_per_h, tuning_usd
from trilemma.cost.packing import box_gpus
from trilemma.cost.sharing import made_once
from trilemma.cost.use import ByUse
from trilemma.deployment.spec import Deployment
from trilemma.units import HOURS_PER_YEAR

SIXTEEN_BITS = frozenset({"bf16", "fp16"})
MADE_WHILE_LOADING = frozenset({"fp8"})  # of a 16-bit checkpoint, without calibration


class PrecisionWork(StrEnum):
    """What the weight format asks of engineers before the model can be served in it."""

    NONE = "none"  # served as published, or in more bits
    CHECK = "check"  # a stock checkpoint, or one quantised while loading: judge what the answers lose
    OWN = "own"  # quantise with calibration, then judge


PRECISION_RATES: Mapping[PrecisionWork, str] = {
    PrecisionWork.CHECK: "checkpoint_check_weeks",
    PrecisionWork.OWN: "quantisation_weeks",
}


def topology_of(deployment: Deployment) -> Topology:
    """How far a replica spreads; a deployment does not say whether it is disaggregated."""
    gpus = deployment.parallelism.gpus
    if gpus > box_gpus(deployment.accelerator):
        return Topology.MULTI_NODE
    return Topology.SINGLE_GPU if gpus == 1 else Topology.NODE


def precision_work(model: Model, precision: Precision) -> PrecisionWork:
    """The work a format takes: none in the model's own format or in 16 bits, a check where a checkpoint in it is
    published (an alias of the model names the format) or made while loading (FP8), one's own quantisation otherwise.

    >>> from types import SimpleNamespace as Some
    >>> llama = Some(precision="bf16", aliases=("nvidia/Llama-3.3-70B-Instruct-NVFP4",))
    >>> [precision_work(llama, Some(name=name, aliases=())).value for name in ("bf16", "fp8", "nvfp4", "int4")]
    ['none', 'check', 'check', 'own']
    """
    wanted = precision.name
    if wanted == model.precision or wanted in SIXTEEN_BITS:
        return PrecisionWork.NONE
    names = {wanted, *precision.aliases}
    if wanted in MADE_WHILE_LOADING or names & _words_of(model.aliases):
        return PrecisionWork.CHECK
    return PrecisionWork.OWN


@cache
def _words_of(names: tuple[str, ...]) -> frozenset[str]:
    """The parts of names between dashes, slashes and the like, in lower case."""
    return frozenset(re.split(r"[^a-z0-9]+", " ".join(names).lower()))


def engineering_line(
    name: str, usd_per_h: float, *, formula: str, source: str, is_useful: bool, scales_with_price: bool = False
) -> Line:
    """All useful, or all waste where the deployment does nothing useful."""
    split = ByUse(useful=usd_per_h) if is_useful else ByUse(waste=usd_per_h)
    return Line(
        name=name,
        dimension=Dimension.ENGINEERING,
        usd_per_h=usd_per_h,
        split=split,
        formula=formula,
        source=source,
        scales_with_price=scales_with_price,
    )


def weeks_line(name: str, weeks: float, economics: Economics, *, weeks_source: str, is_useful: bool) -> Line:
    """Weeks paid once, spread over the months the model stays in production."""
    salary, rate, months = economics.engineer_usd_per_year, economics.discount_rate, economics.model_life_months
    common = cite_rates(economics, "engineer_usd_per_year", "model_life_months", "discount_rate")
    return engineering_line(
        name,
        spread_usd_per_h(tuning_usd(weeks, salary), rate=rate, months=months),
        formula=f"{number(weeks)} weeks x {dollars(salary)} / {WEEKS_PER_YEAR} weeks {_over(rate, months)}",
        source=f"weeks: {weeks_source}; {common}",
        is_useful=is_useful,
    )


def engineering_lines(fleet: Fleet, deployment: Deployment, effort: Effort, *, is_useful: bool) -> tuple[Line, ...]:
    """Tuning, precision work and benchmarking spread over the model's life in production, upkeep hour by hour.

    Benchmarking burns energy on owned nodes, which are paid already; extra hours where hours are bought; nothing on
    a reservation, whose hours and energy are paid already. No matter how many replicas run.
    """
    return _engineering_lines(
        fleet.economics, fleet.offer, fleet.accelerator, effort, deployment.model, deployment.precision,
        is_useful=is_useful,
    )  # fmt: skip


@made_once
def _engineering_lines(  # noqa: PLR0917 - all that the lines depend on, told apart by identity
    economics: Economics,
    offer: Offer,
    accelerator: Accelerator,
    effort: Effort,
    model: Model,
    precision: Precision,
    *,
    is_useful: bool,
) -> tuple[Line, ...]:
    scale = effort.upkeep_scale.value
    salary = economics.engineer_usd_per_year
    tuning = weeks_line("tuning", effort.weeks.value, economics, weeks_source=cite(effort.weeks), is_useful=is_useful)
    scaled = "" if scale == 1 else f" x {number(scale)}"
    upkeep = engineering_line(
        "upkeep",
        economics.upkeep_fte * scale * salary / HOURS_PER_YEAR,
        formula=(f"{number(economics.upkeep_fte)} FTE{scaled} x {dollars(salary)} a year / {number(HOURS_PER_YEAR)} h"),
        source=cite_rates(economics, "upkeep_fte", "engineer_usd_per_year")
        + (f"; upkeep_scale: {cite(effort.upkeep_scale)}" if scaled else ""),
        is_useful=is_useful,
    )
    own = _precision_lines(economics, model, precision, is_useful=is_useful)
    return (tuning, *own, upkeep, *_benchmark_lines(economics, offer, accelerator, is_useful=is_useful))


def precision_rate(deployment: Deployment) -> str | None:
    """The field of Economics that says how many weeks the deployment's format takes; None for no work."""
    return PRECISION_RATES.get(precision_work(deployment.model, deployment.precision))


def _precision_lines(economics: Economics, model: Model, precision: Precision, *, is_useful: bool) -> tuple[Line, ...]:
    rate = PRECISION_RATES.get(precision_work(model, precision))
    weeks = 0.0 if rate is None else float(getattr(economics, rate))
    if rate is None or not weeks:
        return ()
    source = f"{rate} of {precision.name}: {cite(economics.figures.get(rate))}"
    return (weeks_line("precision work", weeks, economics, weeks_source=source, is_useful=is_useful),)


def _benchmark_lines(
    economics: Economics, offer: Offer, accelerator: Accelerator, *, is_useful: bool
) -> tuple[Line, ...]:
    hours, kind = economics.benchmark_gpu_hours, offer.kind
    rate, months = economics.discount_rate, economics.model_life_months
    if kind is OfferKind.RESERVED or not hours:
        return ()
    if kind is OfferKind.OWNED:
        watts, tariff = accelerator.prefill_w, economics.electricity_usd_per_kwh
        usd_per_gpu_h = energy_usd_per_h(watts, pue=economics.pue, usd_per_kwh=tariff)
        each = f"{number(watts)} W / 1,000 x {number(economics.pue)} PUE x {dollars(tariff)} per kWh"
        source = cite_rates(economics, "benchmark_gpu_hours", "pue", "electricity_usd_per_kwh")
    else:
        usd_per_gpu_h = offer.price.value
        each, source = f"{dollars(usd_per_gpu_h)} per GPU-hour", cite_rates(economics, "benchmark_gpu_hours")
    line = engineering_line(
        "benchmarking",
        spread_usd_per_h(hours * usd_per_gpu_h, rate=rate, months=months),
        formula=f"{number(hours)} GPU-hours x {each} {_over(rate, months)}",
        source=source,
        is_useful=is_useful,
        scales_with_price=kind is not OfferKind.OWNED,
    )
    return (line,)


def _over(rate: float, months: float) -> str:
    """The end of a formula that spreads an outlay: level yearly payments that repay it over the months."""
    years, hours = number(months / 12), number(HOURS_PER_YEAR)
    if not rate:
        return f"/ {years} years / {hours} h"
    return f"x {number(rate)} / (1 - {number(1 + rate)}^-{years}) / {hours} h"

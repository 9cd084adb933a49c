"""People and machine time that make a deployment run: weeks of tuning, upkeep, benchmarking."""

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.figure import Figure
from trilemma.catalogue.offer import OfferKind
from trilemma.cost.fleet import Fleet
from trilemma.cost.lines import Dimension, Line, cite, cite_rates, dollars, number
from trilemma.cost.money import WEEKS_PER_YEAR, energy_usd_per_h, spread_usd_per_h, tuning_usd
from trilemma.cost.packing import box_gpus
from trilemma.cost.use import ByUse
from trilemma.deployment.spec import Deployment
from trilemma.units import HOURS_PER_YEAR


def tuning_weeks(engine: Engine, deployment: Deployment) -> Figure:
    """Engineer-weeks until the engine serves well: more where a replica spans nodes."""
    spans_nodes = deployment.parallelism.gpus > box_gpus(deployment.accelerator)
    return engine.tuning_weeks_multi_node if spans_nodes else engine.tuning_weeks


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


def engineering_lines(fleet: Fleet, deployment: Deployment, engine: Engine, *, is_useful: bool) -> tuple[Line, ...]:
    """Tuning and benchmarking spread over the model's life in production, upkeep hour by hour.

    Benchmarking burns energy on owned nodes, which are paid already; extra hours where hours are bought; nothing on
    a reservation, whose hours and energy are paid already.
    """
    economics, weeks = fleet.economics, tuning_weeks(engine, deployment)
    salary = economics.engineer_usd_per_year
    tuning = weeks_line("tuning", weeks.value, economics, weeks_source=cite(weeks), is_useful=is_useful)
    upkeep = engineering_line(
        "upkeep",
        economics.upkeep_fte * salary / HOURS_PER_YEAR,
        formula=f"{number(economics.upkeep_fte)} FTE x {dollars(salary)} a year / {number(HOURS_PER_YEAR)} h",
        source=cite_rates(economics, "upkeep_fte", "engineer_usd_per_year"),
        is_useful=is_useful,
    )
    return (tuning, upkeep, *_benchmark_lines(fleet, is_useful=is_useful))


def _benchmark_lines(fleet: Fleet, *, is_useful: bool) -> tuple[Line, ...]:
    economics, hours = fleet.economics, fleet.economics.benchmark_gpu_hours
    kind, rate, months = fleet.offer.kind, economics.discount_rate, economics.model_life_months
    if kind is OfferKind.RESERVED or not hours:
        return ()
    if kind is OfferKind.OWNED:
        watts, tariff = fleet.accelerator.prefill_w, economics.electricity_usd_per_kwh
        usd_per_gpu_h = energy_usd_per_h(watts, pue=economics.pue, usd_per_kwh=tariff)
        each = f"{number(watts)} W / 1,000 x {number(economics.pue)} PUE x {dollars(tariff)} per kWh"
        source = cite_rates(economics, "benchmark_gpu_hours", "pue", "electricity_usd_per_kwh")
    else:
        usd_per_gpu_h = fleet.offer.price.value
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

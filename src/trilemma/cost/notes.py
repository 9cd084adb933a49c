"""What a reader of the bill has to know besides its numbers: obligations, unmeasured parts, what it rests on."""

from collections.abc import Mapping, Sequence

import numpy as np

from trilemma.catalogue.dates import age_days, day_of
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Effort
from trilemma.catalogue.figure import Figure, Source, weakest
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.staleness import STALE_DAYS, stale_prices
from trilemma.cost.fleet import CHARGES_ALL_DAY, Fleet
from trilemma.cost.lines import dollars, number
from trilemma.cost.sharing import made_once
from trilemma.cost.use import GpuUse
from trilemma.metrics.activity import Activity, Capacity, Schedule
from trilemma.units import HOURS_PER_MONTH, SECONDS_PER_H, show_usd

OWNED_RATES = (
    "capex_uplift", "residual_share", "pue", "electricity_usd_per_kwh", "colocation_usd_per_kw_month",
    "maintenance_share_per_year", "insurance_share_per_year", "operations_fte_per_node",
)  # fmt: skip
TARIFFS = ("electricity_usd_per_kwh", "colocation_usd_per_kw_month")
# Rates that only some lines rest on.
RATES_OF: Mapping[str, tuple[str, ...]] = {
    "benchmarking": ("benchmark_gpu_hours",),
    "interruptions": ("spot_lost_work_s",),
}
ALL_RATES = ("discount_rate", "engineer_usd_per_year", "upkeep_fte", "model_life_months")


def obligation_notes(fleet: Fleet) -> tuple[str, ...]:
    """What is bought or committed to, and what of it binds beyond the horizon or ends before it."""
    economics, offer = fleet.economics, fleet.offer
    horizon = economics.horizon_months
    if offer.kind is OfferKind.OWNED:
        units = fleet.units
        bought = units * offer.price.value * (1 + economics.capex_uplift)
        whole = f"{units} unit{'' if units == 1 else 's'}"
        return (f"buys {whole} for {dollars(round(bought))}, network and storage included",)
    if offer.kind is not OfferKind.RESERVED:
        return ()
    months = float(offer.term_months)
    term_usd = fleet.paid_gpus * offer.price.value * HOURS_PER_MONTH
    first_usd = term_usd * months * offer.upfront_share
    upfront = f", {dollars(round(first_usd))} of it upfront" if first_usd else ""
    notes = [f"commits to {dollars(round(term_usd * months))} over {number(months)} months{upfront}"]
    if months > horizon:
        notes.append(
            f"obligation beyond the horizon of {number(horizon)} months: the reserved term is {number(months)} months; "
            f"{dollars(round(term_usd * (months - horizon)))} falls after it and is priced as used to the end"
        )
    elif months < horizon:
        notes.append(f"the reserved term is {number(months)} of {number(horizon)} months: renewed at the same price")
    return tuple(notes)


def capacity_notes(capacity: Capacity, economics: Economics, offer: Offer) -> tuple[str, ...]:
    """What was not measured and what stands in for it."""
    notes = []
    if capacity.saturation_rps is None:
        notes.append("saturation is unmeasured: busy GPU time stands in for served load / saturation")
    if capacity.knee_rps is None:
        notes.append("the knee is unmeasured: headroom is not split into latency and reserve")
    elif capacity.saturation_rps is not None and capacity.knee_rps > capacity.saturation_rps * (1 + 1e-6):
        notes.append("the knee was measured above saturation: taken as saturation, latency headroom is 0")
    if offer.kind is not OfferKind.OWNED:
        notes.append(
            f"electricity is inside the rent; energy and carbon shown are not billed and take a PUE of "
            f"{number(economics.pue)} and {number(economics.grid_gco2_per_kwh)} g CO2 per kWh"
        )
    return tuple(notes)


def interruption_notes(fleet: Fleet) -> tuple[str, ...]:
    """Spot: the spare capacity that interruptions imply, or that their rate is unavailable."""
    if fleet.offer.kind is not OfferKind.SPOT:
        return ()
    rate, spare = fleet.offer.interruptions_per_h, fleet.spare_gpus
    if rate is None or spare is None:
        return (
            f"the rate of spot interruptions is unavailable for {fleet.offer.name}: lost work and the spare capacity "
            f"they need are not in this bill",
        )
    return (
        f"spot: {number(rate.value)} interruptions per instance-hour take {spare:.3g} spare GPUs on average; an "
        f"interrupted replica is away for {minutes(fleet.start_s)}",
    )


def start_notes(fleet: Fleet) -> tuple[str, ...]:
    """Where the fleet follows the load: that instances answer late, and what holding them earlier would cost."""
    added, start_s, seconds = fleet.added_gpus, fleet.start_s, fleet.schedule.seconds
    if fleet.offer.kind in CHARGES_ALL_DAY or not start_s or not added.any():
        return ()
    before_s = np.minimum(np.concatenate((seconds[-1:], seconds[:-1])), SECONDS_PER_H)
    earlier_usd_per_h = float(added @ before_s) / fleet.schedule.period_s * fleet.offer.price.value
    rises = int(np.count_nonzero(added))
    notes = [
        f"instances are added in {rises} of {seconds.size} intervals and answer {minutes(start_s)} after they are "
        f"asked for: ask that far ahead; held up to an hour earlier they cost {show_usd(earlier_usd_per_h)}/h more"
    ]
    shortest_s = float(seconds[added > 0].min())
    if start_s > shortest_s:
        notes.append(
            f"starting takes {minutes(start_s)}, longer than the interval of {minutes(shortest_s)} in which instances "
            f"are added: a fleet that starts them when the interval begins is too late"
        )
    return tuple(notes)


def minutes(seconds: float) -> str:
    """A duration as notes print it.

    >>> minutes(420), minutes(45)
    ('7 min', '45 s')
    """
    return f"{number(float(f'{seconds / 60:.3g}'))} min" if seconds >= 60 else f"{number(float(f'{seconds:.3g}'))} s"


@made_once
def load_notes(use: GpuUse, schedule: Schedule, activity: Activity, *, gpus_per_replica: int) -> tuple[str, ...]:
    """Load that nothing serves, and load beyond what the run saw."""
    offered, served = schedule.mean_load_rps, use.over_period(use.served_rps)
    notes = [schedule.reason] if schedule.reason else []
    if served < offered * (1 - 1e-9):
        notes.append(f"{(1 - served / offered):.1%} of the load is beyond what the held replicas can serve")
    run_replicas = activity.held_gpu_s / activity.span_s / gpus_per_replica if activity.span_s else 0.0
    if run_replicas and np.isfinite(activity.rate_rps):
        run_rps = activity.rate_rps / run_replicas
        per_replica = np.divide(
            schedule.load_rps, schedule.held_replicas, out=np.zeros_like(use.held), where=schedule.held_replicas > 1e-9
        )
        if per_replica.max() > run_rps * 1.01:
            notes.append(
                f"the busiest interval has {number(per_replica.max())} requests/s a replica, the run "
                f"{number(run_rps)}: its share of late tokens is the run's"
            )
    return tuple(notes)


@made_once
def price_notes(offer: Offer, economics: Economics, as_of: str | None) -> tuple[str, ...]:
    """Prices too old on `as_of` (ISO date; None: not judged) to trust without a word; owned: tariffs too."""
    if as_of is None:
        return ()
    notes = list(stale_prices([offer], as_of))
    for name in TARIFFS if offer.kind is OfferKind.OWNED else ():
        figure = economics.figures.get(name)
        if figure is not None:
            age = age_days(figure.as_of, day_of(as_of, where="as_of"), where=f"economics.{name}")
            if age > STALE_DAYS:
                notes.append(f"{name}: price of {figure.as_of}, {age} days before {as_of}")
    return tuple(notes)


def figures_used(
    economics: Economics, offer: Offer, effort: Effort, lines: Sequence[str], *, precision_rate: str | None
) -> dict[str, Figure]:
    """Every sourced number that a bill with `lines` of these names rests on, by name; what the user gave is not among
    them."""
    names = ALL_RATES + (("horizon_months", *OWNED_RATES) if offer.kind is OfferKind.OWNED else ())
    figures: dict[str, Figure | None] = {f"price of {offer.name}": offer.price, "tuning weeks": effort.weeks}
    if effort.upkeep_scale.value != 1:
        figures["upkeep scale"] = effort.upkeep_scale
    for line in lines:
        names += RATES_OF.get(line, ())
        if line in {"start-up", "interruptions"}:
            figures["start_s"] = economics.figures.get("instance_start_s") if offer.start_s is None else offer.start_s
        if line == "interruptions":
            figures["interruptions"] = offer.interruptions_per_h
        if line == "precision work" and precision_rate is not None:
            names += (precision_rate,)
    figures |= {name: economics.figures.get(name) for name in names}
    return {name: figure for name, figure in figures.items() if figure is not None}


def rests_on(figures: dict[str, Figure]) -> tuple[Source, str]:
    """The weakest source among the figures, and a sentence that names those figures."""
    source = weakest(*(figure.source for figure in figures.values()))
    names = ", ".join(name for name, figure in figures.items() if figure.source is source)
    return source, f"rests at its weakest on numbers known as {source.label}: {names}"

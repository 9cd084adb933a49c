"""What a reader of the bill has to know besides its numbers: obligations, unmeasured parts, what it rests on."""

import numpy as np

from trilemma.catalogue.dates import age_days, day_of
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.figure import Figure, Source, weakest
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.staleness import STALE_DAYS, stale_prices
from trilemma.cost.fleet import Fleet
from trilemma.cost.lines import dollars, number
from trilemma.metrics.activity import Activity, Capacity, Schedule
from trilemma.units import HOURS_PER_MONTH

OWNED_RATES = (
    "capex_uplift", "residual_share", "pue", "electricity_usd_per_kwh", "colocation_usd_per_kw_month",
    "maintenance_share_per_year", "insurance_share_per_year", "operations_fte_per_node",
)  # fmt: skip
TARIFFS = ("electricity_usd_per_kwh", "colocation_usd_per_kw_month")
ALL_RATES = ("discount_rate", "engineer_usd_per_year", "upkeep_fte", "model_life_months")


def obligation_notes(fleet: Fleet) -> tuple[str, ...]:
    """What is bought or committed to, and what of it binds beyond the horizon or ends before it."""
    economics, offer = fleet.economics, fleet.offer
    horizon = economics.horizon_months
    if offer.kind is OfferKind.OWNED:
        units = fleet.units
        bought = units * offer.price.value * (1 + economics.capex_uplift)
        return (f"buys {units} units for {dollars(round(bought))}, network and storage included",)
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
    if offer.kind is OfferKind.SPOT:
        rate = offer.interruptions_per_h
        known = "unknown" if rate is None else f"{number(rate)} an hour"
        notes.append(f"spot interruptions are {known}: lost work and the spare capacity they need are not in this bill")
    if offer.kind is not OfferKind.OWNED:
        notes.append(f"electricity is inside the rent; the energy shown takes a PUE of {number(economics.pue)}")
    return tuple(notes)


def load_notes(fleet: Fleet, schedule: Schedule, activity: Activity, *, gpus_per_replica: int) -> tuple[str, ...]:
    """Load that nothing serves, and load beyond what the run saw."""
    use = fleet.use
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


def figures_used(offer: Offer, economics: Economics, weeks: Figure) -> dict[str, Figure]:
    """Every sourced number the bill rests on, by name; what the user gave is not among them."""
    names = ALL_RATES + (("horizon_months", *OWNED_RATES) if offer.kind is OfferKind.OWNED else ())
    names += () if offer.kind is OfferKind.RESERVED else ("benchmark_gpu_hours",)
    rates = {name: economics.figures[name] for name in names if name in economics.figures}
    return {f"price of {offer.name}": offer.price, "tuning weeks": weeks, **rates}


def rests_on(figures: dict[str, Figure]) -> tuple[Source, str]:
    """The weakest source among the figures, and a sentence that names those figures."""
    source = weakest(*(figure.source for figure in figures.values()))
    names = ", ".join(name for name, figure in figures.items() if figure.source is source)
    return source, f"rests at its weakest on numbers known as {source.label}: {names}"

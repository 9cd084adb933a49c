"""What each kind of offer charges: owned nodes, hours on demand, a reserved term, spot hours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.cost.fleet import Fleet
from trilemma.cost.lines import Dimension, Line, cite, cite_rates, dollars, number
from trilemma.cost.money import annuity_usd_per_h, energy_usd_per_h, monthly_usd_per_h, upfront_factor
from trilemma.cost.sharing import made_once
from trilemma.cost.use import ByUse
from trilemma.units import HOURS_PER_MONTH, HOURS_PER_YEAR, SECONDS_PER_H

FloatArray = npt.NDArray[np.float64]
FINEST_INCREMENT_S = 1.0  # time charged by the second is charged as it is used


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCost:
    """What one purchase unit costs hour after hour, whatever it does: a line of the bill before anyone says how many.

    `formula` goes on after the count, of nodes or of units as `per` says.
    """

    name: str
    dimension: Dimension
    usd_per_h: float
    per: str
    formula: str
    source: str
    scales_with_price: bool = False

    def of(self, fleet: Fleet) -> Line:
        """The line of a fleet's units, spread over their GPUs by GPU-seconds."""
        count = number(fleet.nodes) if self.per == "nodes" else str(fleet.units)
        return Line(
            name=self.name,
            dimension=self.dimension,
            usd_per_h=fleet.units * self.usd_per_h,
            split=fleet.gpus.times(self.usd_per_h / fleet.offer.purchase_unit_gpus),
            formula=f"{count} {self.per} x {self.formula}",
            source=self.source,
            scales_with_price=self.scales_with_price,
        )


def _capital(economics: Economics, offer: Offer) -> UnitCost:
    """Whole units, network and storage included, less the residual: an annuity over the horizon."""
    price_usd, rate, years = offer.price.value, economics.discount_rate, economics.horizon_months / 12
    bought, left = dollars(price_usd * (1 + economics.capex_uplift)), dollars(price_usd * economics.residual_share)
    growth, hours = f"{number(1 + rate)}^-{number(years)}", number(HOURS_PER_YEAR)
    rates = ("capex_uplift", "residual_share", "discount_rate", "horizon_months")
    return UnitCost(
        name="hardware",
        dimension=Dimension.CAPITAL,
        usd_per_h=annuity_usd_per_h(
            price_usd, uplift=economics.capex_uplift, residual_share=economics.residual_share, rate=rate, years=years
        ),
        per="units",
        formula=(
            f"({bought} - {left} x {growth}) x {number(rate)} / (1 - {growth}) / {hours} h"
            if rate
            else f"({bought} - {left}) / {number(years)} years / {hours} h"
        ),
        source=f"price: {cite(offer.price)}; {cite_rates(economics, *rates)}",
        scales_with_price=True,
    )


def energy_line(fleet: Fleet) -> Line:
    """Electricity of the nodes at the simulated activity, spread by the joules of each state."""
    economics, watts = fleet.economics, fleet.power.mean_w
    tariff = economics.electricity_usd_per_kwh
    usd_per_w_h = energy_usd_per_h(1.0, pue=economics.pue, usd_per_kwh=tariff)
    rates = cite_rates(economics, "pue", "electricity_usd_per_kwh")
    return Line(
        name="energy",
        dimension=Dimension.OPERATIONAL,
        usd_per_h=energy_usd_per_h_of(fleet),
        split=fleet.power.by_use.times(usd_per_w_h),
        formula=(f"{number(watts)} W / 1,000 x {number(economics.pue)} PUE x {dollars(tariff)} per kWh"),
        source=f"watts: {_watts_source(fleet)}; {rates}",
    )


def energy_usd_per_h_of(fleet: Fleet) -> float:
    """Electricity of the nodes, $/h."""
    economics = fleet.economics
    return energy_usd_per_h(fleet.power.mean_w, pue=economics.pue, usd_per_kwh=economics.electricity_usd_per_kwh)


def _watts_source(fleet: Fleet) -> str:
    """Whose watts the energy is reckoned from."""
    activity, name = fleet.activity, fleet.accelerator.name
    if activity.prefill_w is None or activity.decode_w is None:
        return f"run's activity and {name}"
    return (
        f"run's activity, {number(round(activity.prefill_w))} W in prefill and {number(round(activity.decode_w))} W in "
        f"decode predicted for its steps, idle watts of {name}"
    )


def _colocation(economics: Economics, offer: Offer, accelerator: Accelerator) -> UnitCost:
    """Floor, power feed and cooling: charged on provisioned kW, used or not."""
    share = offer.purchase_unit_gpus / accelerator.gpus_per_node
    kilowatts, rate = accelerator.node_max_w / 1000, economics.colocation_usd_per_kw_month
    return UnitCost(
        name="colocation",
        dimension=Dimension.OPERATIONAL,
        usd_per_h=monthly_usd_per_h(share * kilowatts * rate),
        per="nodes",
        formula=f"{number(kilowatts)} kW x {dollars(rate)} per kW and month / {number(HOURS_PER_MONTH)} h",
        source=f"kW: {accelerator.name}; {cite_rates(economics, 'colocation_usd_per_kw_month')}",
    )


def _yearly_share(economics: Economics, offer: Offer, name: str, field: str) -> UnitCost:
    """A yearly share of what the unit cost, network and storage included."""
    bought_usd = offer.price.value * (1 + economics.capex_uplift)
    share: float = getattr(economics, field)
    return UnitCost(
        name=name,
        dimension=Dimension.OPERATIONAL,
        usd_per_h=bought_usd * share / HOURS_PER_YEAR,
        per="units",
        formula=f"{dollars(bought_usd)} x {number(share)} a year / {number(HOURS_PER_YEAR)} h",
        source=f"price: {cite(offer.price)}; {cite_rates(economics, 'capex_uplift', field)}",
        scales_with_price=True,
    )


def _staff(economics: Economics, offer: Offer, accelerator: Accelerator) -> UnitCost:
    """People who keep the nodes running; those who keep the serving stack are engineering."""
    share = offer.purchase_unit_gpus / accelerator.gpus_per_node
    per_node, salary = economics.operations_fte_per_node, economics.engineer_usd_per_year
    return UnitCost(
        name="operations staff",
        dimension=Dimension.OPERATIONAL,
        usd_per_h=share * per_node * salary / HOURS_PER_YEAR,
        per="nodes",
        formula=f"{number(per_node)} FTE x {dollars(salary)} a year / {number(HOURS_PER_YEAR)} h",
        source=cite_rates(economics, "operations_fte_per_node", "engineer_usd_per_year"),
    )


@made_once
def _unit_costs(economics: Economics, offer: Offer, accelerator: Accelerator) -> tuple[UnitCost, ...]:
    """All that an owned unit costs but its energy."""
    return (
        _capital(economics, offer),
        _colocation(economics, offer, accelerator),
        _yearly_share(economics, offer, "maintenance", "maintenance_share_per_year"),
        _yearly_share(economics, offer, "insurance", "insurance_share_per_year"),
        _staff(economics, offer, accelerator),
    )


def owned_lines(fleet: Fleet) -> tuple[Line, ...]:
    """Capital, energy, colocation, maintenance, insurance, staff."""
    capital, *running = (cost.of(fleet) for cost in _unit_costs(fleet.economics, fleet.offer, fleet.accelerator))
    return (capital, energy_line(fleet), *running)


def _rent_line(fleet: Fleet, name: str, usd_per_gpu_h: float, formula: str) -> Line:
    return Line(
        name=name,
        dimension=Dimension.OPERATIONAL,
        usd_per_h=fleet.paid_gpus * usd_per_gpu_h,
        split=fleet.gpus.times(usd_per_gpu_h),
        formula=formula,
        source=f"price: {cite(fleet.offer.price)}",
        scales_with_price=True,
    )


def hourly_lines(fleet: Fleet) -> tuple[Line, ...]:
    """On demand: every hour that a held replica's units run, at work or not, while they start, and to the end of what
    is charged."""
    price = fleet.offer.price.value
    rent = _rent_line(fleet, "rent", price, f"{number(fleet.paid_gpus)} GPUs x {dollars(price)} per GPU-hour")
    return (rent, *_start_up_lines(fleet), *_increment_lines(fleet))


def spot_lines(fleet: Fleet) -> tuple[Line, ...]:
    """As on demand, and what interruptions take."""
    return (*hourly_lines(fleet), *_interruption_lines(fleet))


def _beside_rent(fleet: Fleet, name: str, split: ByUse, *, formula: str, source: str) -> Line:
    """Rent of GPUs beside those that serve; `split` holds GPUs, averaged over the period."""
    price = fleet.offer.price
    usd = split.times(price.value)
    return Line(
        name=name,
        dimension=Dimension.OPERATIONAL,
        usd_per_h=split.total * price.value,
        split=usd,
        formula=f"{formula} x {dollars(price.value)} per GPU-hour",
        source=f"price: {cite(price)}; {source}",
        scales_with_price=True,
    )


def _start_up_lines(fleet: Fleet) -> tuple[Line, ...]:
    """Instances are paid from the moment they are asked for, and answer later."""
    added, start_s, period_s = float(fleet.added_gpus.sum()), fleet.start_s, fleet.schedule.period_s
    if not added * start_s:
        return ()
    formula = f"{number(added)} GPUs x {number(start_s)} s / {number(period_s)} s"
    waste = ByUse(waste=added * start_s / period_s)
    return (_beside_rent(fleet, "start-up", waste, formula=formula, source=_start_source(fleet)),)


def _start_source(fleet: Fleet) -> str:
    start = fleet.offer.start_s
    return cite_rates(fleet.economics, "instance_start_s") if start is None else f"start_s: {cite(start)}"


def _increment_lines(fleet: Fleet) -> tuple[Line, ...]:
    """What is released before the end of a charged increment is paid to that end."""
    increment_s, schedule = fleet.offer.billing_increment_h * SECONDS_PER_H, fleet.schedule
    if increment_s <= FINEST_INCREMENT_S:
        return ()
    unused_gpu_s = charged_beyond(fleet.use.paid, schedule.seconds, start_s=fleet.start_s, increment_s=increment_s)
    if not unused_gpu_s:
        return ()
    formula = f"{number(unused_gpu_s / SECONDS_PER_H)} GPU-hours / {number(schedule.period_s / SECONDS_PER_H)} h"
    idle = ByUse(idle=unused_gpu_s / schedule.period_s)
    source = f"charged by {number(fleet.offer.billing_increment_h)} h: {fleet.offer.name}"
    return (_beside_rent(fleet, "billing increments", idle, formula=formula, source=source),)


def charged_beyond(paid: FloatArray, seconds: FloatArray, *, start_s: float, increment_s: float) -> float:
    """GPU-seconds of a period that are charged after their release, since time is charged in whole increments.

    paid (k,) GPUs in intervals of seconds (k,) that repeat for ever. The GPU added last is released first; it is held
    for its start and for as long as it serves. What is needed again before the increment ends is charged to then only.

    >>> charged_beyond(np.array([8.0, 16.0, 8.0]), np.array([3600.0, 1800.0, 1800.0]), start_s=0, increment_s=3600)
    14400.0
    """
    unused_gpu_s, below = 0.0, float(paid.min())
    for level in np.unique(paid)[1:].tolist():
        held = paid >= level
        first = int(np.flatnonzero(~held & np.roll(held, 1))[0])  # the period is read from a release on
        held, lasting_s = np.roll(held, -first), np.roll(seconds, -first)
        turns = np.concatenate(([0], np.flatnonzero(held[1:] != held[:-1]) + 1))
        lengths_s = np.add.reduceat(lasting_s, turns)
        rest_s, held_s = lengths_s[0::2], lengths_s[1::2] + start_s
        beyond_s = np.ceil(held_s / increment_s - 1e-9) * increment_s - held_s
        unused_gpu_s += (level - below) * float(np.minimum(np.maximum(beyond_s, 0.0), np.roll(rest_s, -1)).sum())
        below = level
    return unused_gpu_s


def _interruption_lines(fleet: Fleet) -> tuple[Line, ...]:
    """Instances taken away: each stops a unit's GPUs, or a whole replica's, until others have started and the lost work
    is done again. The GPUs that this takes on average are the spare capacity that spot needs."""
    rate, spare = fleet.offer.interruptions_per_h, fleet.spare_gpus
    if rate is None or not spare:
        return ()
    instances = number(fleet.paid_gpus / fleet.offer.purchase_unit_gpus)
    away_s = f"({number(fleet.start_s)} + {number(fleet.economics.spot_lost_work_s)}) s / {number(SECONDS_PER_H)} s"
    stopped = f"{instances} instances x {number(rate.value)} an hour x {fleet.stopped_gpus} GPUs"
    formula = f"({stopped} x {away_s}) spare GPUs"
    source = f"rate: {cite(rate)}; {_start_source(fleet)}; {cite_rates(fleet.economics, 'spot_lost_work_s')}"
    return (_beside_rent(fleet, "interruptions", ByUse(waste=spare), formula=formula, source=source),)


def reserved_lines(fleet: Fleet) -> tuple[Line, ...]:
    """The peak's units, every hour of the term; what is paid on day one costs money until it is used."""
    price, offer, rate = fleet.offer.price.value, fleet.offer, fleet.economics.discount_rate
    gpus = number(fleet.paid_gpus)
    rent = _rent_line(fleet, "rent", price, f"{gpus} GPUs x {dollars(price)} per GPU-hour")
    extra = upfront_factor(offer.upfront_share, rate=rate, term_months=offer.term_months) - 1
    if abs(extra) < 1e-12:  # nothing upfront, or money that costs nothing
        return (rent,)
    years, growth = number(offer.term_months / 12), number(1 + rate)
    formula = (
        f"{gpus} GPUs x {dollars(price)} per GPU-hour x {number(offer.upfront_share)} upfront x "
        f"({years} years x {number(rate)} / (1 - {growth}^-{years}) - 1)"
    )
    return (rent, _rent_line(fleet, "money paid upfront", price * extra, formula))


CHARGES: Mapping[OfferKind, Callable[[Fleet], tuple[Line, ...]]] = {
    OfferKind.OWNED: owned_lines,
    OfferKind.ON_DEMAND: hourly_lines,
    OfferKind.RESERVED: reserved_lines,
    OfferKind.SPOT: spot_lines,
}

"""What each kind of offer charges: owned nodes, hours on demand, a reserved term, spot hours."""

from collections.abc import Callable, Mapping

from trilemma.catalogue.offer import OfferKind
from trilemma.cost.fleet import Fleet
from trilemma.cost.lines import Dimension, Line, cite, cite_rates, dollars, number
from trilemma.cost.money import annuity_usd_per_h, energy_usd_per_h, monthly_usd_per_h, upfront_factor
from trilemma.units import HOURS_PER_MONTH, HOURS_PER_YEAR


def _per_unit(
    fleet: Fleet,
    name: str,
    dimension: Dimension,
    unit_usd_per_h: float,
    *,
    formula: str,
    source: str,
    priced: bool = False,
) -> Line:
    """A cost of every unit, hour after hour: spread over its GPUs by GPU-seconds."""
    return Line(
        name=name,
        dimension=dimension,
        usd_per_h=fleet.units * unit_usd_per_h,
        split=fleet.use.mean.times(unit_usd_per_h / fleet.offer.purchase_unit_gpus),
        formula=formula,
        source=source,
        scales_with_price=priced,
    )


def capital_line(fleet: Fleet) -> Line:
    """Whole units, network and storage included, less the residual: an annuity over the horizon."""
    economics, price_usd = fleet.economics, fleet.offer.price.value
    rate, years = economics.discount_rate, economics.horizon_months / 12
    unit_usd_per_h = annuity_usd_per_h(
        price_usd, uplift=economics.capex_uplift, residual_share=economics.residual_share, rate=rate, years=years
    )
    bought, left = dollars(price_usd * (1 + economics.capex_uplift)), dollars(price_usd * economics.residual_share)
    growth, hours = f"{number(1 + rate)}^-{number(years)}", number(HOURS_PER_YEAR)
    formula = (
        f"{fleet.units} units x ({bought} - {left} x {growth}) x {number(rate)} / (1 - {growth}) / {hours} h"
        if rate
        else f"{fleet.units} units x ({bought} - {left}) / {number(years)} years / {hours} h"
    )
    rates = ("capex_uplift", "residual_share", "discount_rate", "horizon_months")
    source = f"price: {cite(fleet.offer.price)}; {cite_rates(economics, *rates)}"
    return _per_unit(fleet, "hardware", Dimension.CAPITAL, unit_usd_per_h, formula=formula, source=source, priced=True)


def energy_line(fleet: Fleet) -> Line:
    """Electricity of the nodes at the simulated activity, spread by the joules of each state."""
    economics, watts = fleet.economics, fleet.power.mean_w
    tariff = economics.electricity_usd_per_kwh
    usd_per_w_h = energy_usd_per_h(1.0, pue=economics.pue, usd_per_kwh=tariff)
    rates = cite_rates(economics, "pue", "electricity_usd_per_kwh")
    return Line(
        name="energy",
        dimension=Dimension.OPERATIONAL,
        usd_per_h=energy_usd_per_h(watts, pue=economics.pue, usd_per_kwh=tariff),
        split=fleet.power.by_use.times(usd_per_w_h),
        formula=(f"{number(watts)} W / 1,000 x {number(economics.pue)} PUE x {dollars(tariff)} per kWh"),
        source=f"watts: run's activity and {fleet.accelerator.name}; {rates}",
    )


def colocation_line(fleet: Fleet) -> Line:
    """Floor, power feed and cooling: charged on provisioned kW, used or not."""
    economics, share = fleet.economics, fleet.offer.purchase_unit_gpus / fleet.accelerator.gpus_per_node
    kilowatts, rate = fleet.accelerator.node_max_w / 1000, economics.colocation_usd_per_kw_month
    formula = (
        f"{number(fleet.nodes)} nodes x {number(kilowatts)} kW x {dollars(rate)} per kW and month / "
        f"{number(HOURS_PER_MONTH)} h"
    )
    source = f"kW: {fleet.accelerator.name}; {cite_rates(economics, 'colocation_usd_per_kw_month')}"
    unit_usd_per_h = monthly_usd_per_h(share * kilowatts * rate)
    return _per_unit(fleet, "colocation", Dimension.OPERATIONAL, unit_usd_per_h, formula=formula, source=source)


def _yearly_share_line(fleet: Fleet, name: str, field: str) -> Line:
    """A yearly share of what the unit cost, network and storage included."""
    economics = fleet.economics
    bought_usd = fleet.offer.price.value * (1 + economics.capex_uplift)
    share: float = getattr(economics, field)
    formula = f"{fleet.units} units x {dollars(bought_usd)} x {number(share)} a year / {number(HOURS_PER_YEAR)} h"
    source = f"price: {cite(fleet.offer.price)}; {cite_rates(economics, 'capex_uplift', field)}"
    unit_usd_per_h = bought_usd * share / HOURS_PER_YEAR
    return _per_unit(fleet, name, Dimension.OPERATIONAL, unit_usd_per_h, formula=formula, source=source, priced=True)


def staff_line(fleet: Fleet) -> Line:
    """People who keep the nodes running; those who keep the serving stack are engineering."""
    economics, share = fleet.economics, fleet.offer.purchase_unit_gpus / fleet.accelerator.gpus_per_node
    per_node, salary = economics.operations_fte_per_node, economics.engineer_usd_per_year
    formula = (
        f"{number(fleet.nodes)} nodes x {number(per_node)} FTE x {dollars(salary)} a year / {number(HOURS_PER_YEAR)} h"
    )
    source = cite_rates(economics, "operations_fte_per_node", "engineer_usd_per_year")
    unit_usd_per_h = share * per_node * salary / HOURS_PER_YEAR
    return _per_unit(fleet, "operations staff", Dimension.OPERATIONAL, unit_usd_per_h, formula=formula, source=source)


def owned_lines(fleet: Fleet) -> tuple[Line, ...]:
    """Capital, energy, colocation, maintenance, insurance, staff."""
    return (
        capital_line(fleet),
        energy_line(fleet),
        colocation_line(fleet),
        _yearly_share_line(fleet, "maintenance", "maintenance_share_per_year"),
        _yearly_share_line(fleet, "insurance", "insurance_share_per_year"),
        staff_line(fleet),
    )


def _rent_line(fleet: Fleet, name: str, usd_per_gpu_h: float, formula: str) -> Line:
    return Line(
        name=name,
        dimension=Dimension.OPERATIONAL,
        usd_per_h=fleet.paid_gpus * usd_per_gpu_h,
        split=fleet.use.mean.times(usd_per_gpu_h),
        formula=formula,
        source=f"price: {cite(fleet.offer.price)}",
        scales_with_price=True,
    )


def hourly_lines(fleet: Fleet) -> tuple[Line, ...]:
    """On demand and spot: every hour that a held replica's units run, at work or not."""
    price = fleet.offer.price.value
    return (_rent_line(fleet, "rent", price, f"{number(fleet.paid_gpus)} GPUs x {dollars(price)} per GPU-hour"),)


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
    OfferKind.SPOT: hourly_lines,
}

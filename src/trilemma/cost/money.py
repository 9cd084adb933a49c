"""Money over time: what an outlay costs per hour when it is paid now and used for years.

One convention for every offer: payments once a year in arrears at the discount rate, 8,760 hours a year.
"""

import math

from trilemma.units import HOURS_PER_MONTH, HOURS_PER_YEAR

WEEKS_PER_YEAR = 52
NO_RATE = 1e-12  # below it interest is lost in rounding


def discount(rate: float, years: float) -> float:
    """What a dollar in `years` is worth today: (1 + rate)^-years.

    >>> round(discount(0.10, 4), 4)
    0.683
    """
    return math.exp(-years * math.log1p(rate))


def annuity_factor(rate: float, years: float) -> float:
    """The level payment a year, in arrears, that repays one dollar in `years`: rate / (1 - (1 + rate)^-years).

    At a rate of 0 the money is spread evenly, 1 / years. Raises ValueError for a negative rate or no years.

    >>> round(annuity_factor(0.10, 4), 6), annuity_factor(0.0, 4)
    (0.315471, 0.25)
    """
    if rate < 0 or not years > 0:
        raise ValueError(f"an annuity needs a rate of at least 0 and years above 0, found {rate} and {years}")
    return rate / -math.expm1(-years * math.log1p(rate)) if rate > NO_RATE else 1 / years


def annuity_usd_per_h(price_usd: float, *, uplift: float, residual_share: float, rate: float, years: float) -> float:
    """Capital cost per hour of one purchase unit bought today and sold in `years`.

    (P - R (1+r)^-n) r / (1 - (1+r)^-n) / 8,760 with P = price x (1 + uplift) for network and storage and R =
    residual_share x price: the uplift leaves no residual.

    An H100 node of $280,000, 25% uplift, 4 years at 10%, per GPU-hour, without and with a residual of 25%:

    >>> round(annuity_usd_per_h(280_000, uplift=0.25, residual_share=0, rate=0.10, years=4) / 8, 2)
    1.58
    >>> round(annuity_usd_per_h(280_000, uplift=0.25, residual_share=0.25, rate=0.10, years=4) / 8, 2)
    1.36
    """
    net_usd = price_usd * (1 + uplift) - price_usd * residual_share * discount(rate, years)
    return net_usd * annuity_factor(rate, years) / HOURS_PER_YEAR


def upfront_factor(upfront_share: float, *, rate: float, term_months: float) -> float:
    """What a rent costs per hour, as a multiple of its price, when `upfront_share` of the term is paid on day one.

    The upfront part is levelised over the term at `rate`; the rest is paid as it falls due.

    >>> round(upfront_factor(0.25, rate=0.09, term_months=36), 4), upfront_factor(0.0, rate=0.09, term_months=36)
    (1.0463, 1.0)
    """
    if not upfront_share:
        return 1.0
    years = term_months / 12
    return 1 - upfront_share + upfront_share * years * annuity_factor(rate, years)


def spread_usd_per_h(outlay_usd: float, *, rate: float, months: float) -> float:
    """An outlay of today as a level cost per hour over `months` at `rate`, with nothing left at the end.

    >>> round(spread_usd_per_h(8760, rate=0.0, months=12), 6)
    1.0
    """
    return outlay_usd * annuity_factor(rate, months / 12) / HOURS_PER_YEAR


def tuning_usd(weeks: float, engineer_usd_per_year: float) -> float:
    """Loaded cost of engineer-weeks, 52 a year.

    >>> round(tuning_usd(2, 300_000))
    11538
    """
    return weeks * engineer_usd_per_year / WEEKS_PER_YEAR


def monthly_usd_per_h(usd_per_month: float) -> float:
    """A monthly charge per hour, 730 hours a month.

    >>> monthly_usd_per_h(730.0)
    1.0
    """
    return usd_per_month / HOURS_PER_MONTH


def energy_usd_per_h(watts: float, *, pue: float, usd_per_kwh: float) -> float:
    """Electricity of `watts` at the nodes, cooling and losses included by the PUE.

    An 8 x H100 node at a constant 10.2 kW, PUE 1.35, $0.087 per kWh, for a year:

    >>> round(energy_usd_per_h(10_200, pue=1.35, usd_per_kwh=0.087) * 8760)
    10494
    """
    return watts / 1000 * pue * usd_per_kwh

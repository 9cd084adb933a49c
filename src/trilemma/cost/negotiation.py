"""The price at which an offer would cost a given total: what to ask for at the table."""

from trilemma.cost.views import Bill


def price_at_total(priced: Bill, *, price: float, total_usd_per_h: float) -> float | None:
    """The offer's price that brings its bill to `total_usd_per_h`, in the price's own unit; None if none above 0 does.

    Exact: the lines that depend on the price are proportional to it. Where no line does (nothing was paid by price),
    there is no such price.
    """
    by_price = sum(line.usd_per_h for line in priced.lines if line.scales_with_price)
    rest = priced.total_usd_per_h - by_price
    if by_price <= 0 or total_usd_per_h <= rest:
        return None
    return price * (total_usd_per_h - rest) / by_price

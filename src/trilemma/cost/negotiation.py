"""The price at which an offer would cost a given total, and for every losing offer the one at which it would win."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trilemma.catalogue.offer import ApiPrice, Offer, OfferKind
from trilemma.cost.lines import number
from trilemma.cost.subject import AnyOffer, Subject, name_of
from trilemma.cost.views import Bill
from trilemma.units import show_usd

ASK = {
    OfferKind.OWNED: "buy",
    OfferKind.ON_DEMAND: "rent",
    OfferKind.RESERVED: "reserve",
    OfferKind.SPOT: "rent spot",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a losing offer would have to charge to cost no more than the winner.

    `price_usd` is in the offer's own unit (USD per purchase unit where owned, else per GPU-hour; of an API's output per
    million tokens), not rounded; `factor` is that over the price now, for an API on all its prices at once. Both None
    where no price above 0 would do. `sentence` says it in words, rounded down so that it holds, or says why not.
    """

    offer: str
    winner: str
    price_now_usd: float
    price_usd: float | None
    factor: float | None
    sentence: str


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


def negotiation(subject: Subject, offers: Sequence[AnyOffer]) -> tuple[Ask, ...]:
    """One ask for every offer but the cheapest, in the offers' order; the first of equally cheap ones has won."""
    bills = [subject.bill(offer) for offer in offers]
    totals = [bill.total_usd_per_h for bill in bills]
    best = totals.index(min(totals)) if totals else 0
    return tuple(
        ask(offer, bill, winner=name_of(offers[best]), total_usd_per_h=totals[best])
        for i, (offer, bill) in enumerate(zip(offers, bills, strict=True))
        if i != best
    )


def ask(offer: AnyOffer, priced: Bill, *, winner: str, total_usd_per_h: float) -> Ask:
    """What `offer`, whose bill is `priced`, would have to charge to cost no more than the winner's total."""
    factor = price_at_total(priced, price=1.0, total_usd_per_h=total_usd_per_h)
    now = offer.output_usd_per_mtok.value if isinstance(offer, ApiPrice) else offer.price.value
    return Ask(
        offer=name_of(offer),
        winner=winner,
        price_now_usd=now,
        price_usd=None if factor is None else now * factor,
        factor=factor,
        sentence=_why_not(priced, winner, total_usd_per_h) if factor is None else _sentence(offer, factor),
    )


def _why_not(priced: Bill, winner: str, total_usd_per_h: float) -> str:
    by_price = sum(line.usd_per_h for line in priced.lines if line.scales_with_price)
    rest = show_usd(priced.total_usd_per_h - by_price)
    wins = f"{winner} costs {show_usd(total_usd_per_h)} an hour"
    if not by_price:
        return f"no price would do: nothing of it is paid by price; {wins}"
    return f"no price would do: without it {rest} an hour are left, {wins}"


def _sentence(offer: AnyOffer, factor: float) -> str:
    if isinstance(offer, Offer):
        unit = "GPU-h" if offer.kind is not OfferKind.OWNED else f"unit of {offer.purchase_unit_gpus} GPUs"
        return f"{ASK[offer.kind]} at or below {_down(offer.price.value * factor)}/{unit}"
    sides = {
        "input": offer.input_usd_per_mtok, "cached input": offer.cached_input_usd_per_mtok,
        "output": offer.output_usd_per_mtok,
    }  # fmt: skip
    prices = [f"{name} at {_down(x.value * factor)}" for name, x in sides.items() if x is not None]
    return f"{' and '.join(prices)} per million tokens or below, {number(float(f'{factor:.3g}'))} times today's"


def _down(usd: float) -> str:
    """Dollars rounded down: cents, whole dollars from a thousand on, three digits below ten cents.

    >>> _down(2.3199), _down(214567.8), _down(0.045678), _down(1.1)
    ('$2.31', '$214,567', '$0.0456', '$1.10')
    """
    if usd >= 1000:
        return f"${math.floor(usd):,}"
    digits = 2 if usd >= 0.1 else 2 - math.floor(math.log10(usd))
    return f"${math.floor(usd * 10**digits * (1 + 1e-12)) / 10**digits:.{digits}f}"

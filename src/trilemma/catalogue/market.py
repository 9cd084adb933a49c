"""Price rows: offers and API prices as values, turned into dollars where they are in another currency."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from trilemma.catalogue.figure import Figure
from trilemma.catalogue.offer import ApiPrice, Offer, OfferKind
from trilemma.catalogue.rows import DOLLARS, Row
from trilemma.errors import InputError
from trilemma.units import SECONDS_PER_H

PRICE_KEYS = ("price", "low", "high", "currency", "source", "as_of", "reference")
KINDS = {kind.value: kind for kind in OfferKind}
HOURLY = (OfferKind.ON_DEMAND, OfferKind.SPOT)
RENTED = (*HOURLY, OfferKind.RESERVED)
ONLY_FOR = {
    "term_months": (OfferKind.RESERVED,),
    "upfront_share": (OfferKind.RESERVED,),
    "interruptions_per_h": (OfferKind.SPOT,),
    "billing_increment_h": HOURLY,
    "start_s": RENTED,
}


def read_offer(row: Row, exchange_rates: Mapping[str, float]) -> Offer:
    """One offer; USD per purchase unit where owned, else per GPU-hour.

    `exchange_rates` are USD per unit of a currency. InputError names file and key.
    """
    kind = KINDS[row.word("kind", KINDS)]
    for key, kinds in ONLY_FOR.items():
        if row.has(key) and kind not in kinds:
            raise InputError(row.place(key), expected=f"nothing for a kind of {kind.value}", found="a value")
    upfront = row.number("upfront_share", 0.0)
    if upfront > 1:
        raise InputError(row.place("upfront_share"), expected="a share of at most 1", found=f"{upfront:g}")
    offer = Offer(
        name=row.text("name"),
        accelerator=row.text("accelerator"),
        kind=kind,
        price=dollars_of(row, exchange_rates)(row.sourced("price", "low", "high")),
        purchase_unit_gpus=row.count("purchase_unit_gpus"),
        market=row.text("market"),
        term_months=row.count("term_months") if kind is OfferKind.RESERVED else 0,
        upfront_share=upfront,
        interruptions_per_h=row.figure("interruptions_per_h") if row.has("interruptions_per_h") else None,
        start_s=row.figure("start_s") if row.has("start_s") else None,
        billing_increment_h=row.number("billing_increment_h", 1 / SECONDS_PER_H, above_zero=True),
        default=row.flag("default", default=True),
    )
    row.end()
    return offer


def read_api_price(row: Row, exchange_rates: Mapping[str, float]) -> ApiPrice:
    """The price of one model behind an API, USD per million tokens.

    `exchange_rates` are USD per unit of a currency. InputError names file and key.
    """
    in_usd = dollars_of(row, exchange_rates)
    price = ApiPrice(
        model=row.text("model"),
        aliases=row.texts("aliases"),
        input_usd_per_mtok=in_usd(row.sourced("input", "input_low", "input_high")),
        output_usd_per_mtok=in_usd(row.sourced("output", "output_low", "output_high")),
        cached_input_usd_per_mtok=(
            in_usd(row.sourced("cached_input", "cached_input_low", "cached_input_high"))
            if row.has("cached_input")
            else None
        ),
    )
    row.end()
    return price


def dollars_of(row: Row, exchange_rates: Mapping[str, float]) -> Callable[[Figure], Figure]:
    """What turns a price of the row into US dollars; its reference then says from what and at which rate.

    Raises InputError at the row's currency where there is no rate for it.
    """
    currency = row.currency()
    if currency == DOLLARS:
        return lambda price: price
    if currency not in exchange_rates:
        raise InputError(
            row.place("currency"), expected="USD, or a currency whose rate the economics give", found=repr(currency),
            hint=f"economics.exchange_rates.{currency}: USD per {currency}; or convert the price",
        )  # fmt: skip
    rate = exchange_rates[currency]
    return lambda price: replace(
        price, value=price.value * rate, low=price.low * rate, high=price.high * rate,
        reference=f"{price.reference}; {currency} {price.value:,.10g} at {rate:g}",
    )  # fmt: skip

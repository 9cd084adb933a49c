"""Price rows: offers, API prices, and the rates of economics.toml as values."""

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.offer import ApiPrice, Offer, OfferKind
from trilemma.catalogue.rows import Row
from trilemma.errors import InputError

PRICE_KEYS = ("price", "low", "high", "currency", "source", "as_of", "reference")
KINDS = {kind.value: kind for kind in OfferKind}
MAY_BE_ZERO = {"residual_share", "maintenance_share_per_year", "insurance_share_per_year", "operations_fte_per_node",
               "colocation_usd_per_kw_month", "capex_uplift", "discount_rate", "upkeep_fte", "benchmark_gpu_hours",
               "api_wrapper_weeks", "electricity_usd_per_kwh"}  # fmt: skip
SHARES = ("discount_rate", "residual_share", "maintenance_share_per_year", "insurance_share_per_year")
RATES = tuple(name for name in Economics.__dataclass_fields__ if name != "figures")


def read_offer(row: Row) -> Offer:
    """One offer; USD per purchase unit where owned, else per GPU-hour. InputError names file and key."""
    kind = KINDS[row.word("kind", KINDS)]
    reserved = kind is OfferKind.RESERVED
    for key, wanted in (
        ("term_months", reserved),
        ("upfront_share", reserved),
        ("interruptions_per_h", kind.value == "spot"),
    ):
        if row.has(key) and not wanted:
            raise InputError(row.place(key), expected=f"nothing for a kind of {kind.value}", found="a value")
    upfront = row.number("upfront_share", 0.0)
    if upfront > 1:
        raise InputError(row.place("upfront_share"), expected="a share of at most 1", found=f"{upfront:g}")
    offer = Offer(
        name=row.text("name"),
        accelerator=row.text("accelerator"),
        kind=kind,
        price=row.sourced("price", "low", "high"),
        purchase_unit_gpus=row.count("purchase_unit_gpus"),
        market=row.text("market"),
        term_months=row.count("term_months") if reserved else 0,
        upfront_share=upfront,
        interruptions_per_h=row.number("interruptions_per_h") if row.has("interruptions_per_h") else None,
        currency=row.currency(),
        default=row.flag("default", default=True),
    )
    row.end()
    return offer


def read_api_price(row: Row) -> ApiPrice:
    """The price of one model behind an API, USD per million tokens. InputError names file and key."""
    price = ApiPrice(
        model=row.text("model"),
        aliases=row.texts("aliases"),
        input_usd_per_mtok=row.sourced("input", "input_low", "input_high"),
        output_usd_per_mtok=row.sourced("output", "output_low", "output_high"),
        cached_input_usd_per_mtok=(
            row.sourced("cached_input", "cached_input_low", "cached_input_high") if row.has("cached_input") else None
        ),
        currency=row.currency(),
    )
    row.end()
    return price


def read_economics(row: Row) -> Economics:
    """Rates and prices around the hardware. InputError names file and key."""
    figures = {name: row.figure(name, above_zero=name not in MAY_BE_ZERO) for name in RATES}
    row.end()
    for name in SHARES:
        if figures[name].value > 1:
            raise InputError(
                row.place(name), expected="a share from 0 to 1", found=f"{figures[name].value:g}", hint="0.09 is 9%"
            )
    if figures["pue"].value < 1:
        raise InputError(row.place("pue"), expected="a ratio of at least 1", found=f"{figures['pue'].value:g}")
    return Economics(**{name: figure.value for name, figure in figures.items()}, figures=figures)

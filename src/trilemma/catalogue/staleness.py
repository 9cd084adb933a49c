"""Old prices: which of them a plan should not trust without a second look."""

from collections.abc import Iterable
from datetime import date

from trilemma.catalogue.dates import age_days, day_of
from trilemma.catalogue.offer import ApiPrice, Offer

STALE_DAYS = 180


def stale_prices(prices: Iterable[Offer | ApiPrice], as_of: str | date, *, days: int = STALE_DAYS) -> tuple[str, ...]:
    """A warning for each price more than `days` older than `as_of`, naming its date.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> stale_prices([load_catalogue().offer("l40s/spot")], "2026-11-01")
    ('l40s/spot: price of 2025-08, 443 days before 2026-11-01',)
    """
    day = day_of(as_of, where="as_of") if isinstance(as_of, str) else as_of
    warnings = []
    for row in prices:
        name = row.name if isinstance(row, Offer) else f"API price of {row.model}"
        figure = row.price if isinstance(row, Offer) else row.output_usd_per_mtok
        age = age_days(figure.as_of, day, where=name)
        if age > days:
            warnings.append(f"{name}: price of {figure.as_of}, {age} days before {day.isoformat()}")
    return tuple(warnings)

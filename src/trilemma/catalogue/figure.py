"""A number and where it comes from: value, low, high, source, date, reference."""

from dataclasses import dataclass
from enum import IntEnum


class Source(IntEnum):
    """How a number is known, best first; a result is as good as its weakest part."""

    MEASURED = 0
    FITTED = 1
    DERIVED = 2
    VENDOR = 3
    GUESS = 4

    @property
    def label(self) -> str:
        """The word used in files and tables, such as "vendor"."""
        return self.name.lower()


def weakest(*sources: Source) -> Source:
    """The worst source of several; MEASURED for none.

    >>> weakest(Source.MEASURED, Source.VENDOR).label
    'vendor'
    """
    return max(sources, default=Source.MEASURED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One sourced number; `low` and `high` bound it, equal to `value` where nothing wider is known.

    `as_of` is an ISO date ("2026-09" or "2026-09-25"); `reference` names file, page or formula.
    """

    value: float
    low: float
    high: float
    source: Source
    as_of: str
    reference: str

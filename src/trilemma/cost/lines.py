"""A line of the bill: an amount per hour, its formula with numbers, where they are from, and what it bought."""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.figure import Figure
from trilemma.cost.sharing import made_once
from trilemma.cost.use import ByUse

CENT_TOLERANCE = 1e-9  # relative; the two views are one set of books


class Dimension(StrEnum):
    """The rows of the cash view."""

    CAPITAL = "capital"
    OPERATIONAL = "operational"
    ENGINEERING = "engineering"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One outlay. `usd_per_h` is reckoned from prices and purchase units, `split` from GPUs (or joules) by use.

    `formula` is the arithmetic with its numbers, readable and exact to six digits. `scales_with_price` marks what
    grows in proportion to the offer's price. `pool` is "prefill" or "decode" where the two run apart. Raises ValueError
    where the two reckonings differ.
    """

    name: str
    dimension: Dimension
    usd_per_h: float
    split: ByUse
    formula: str
    source: str
    scales_with_price: bool = False
    pool: str = ""

    def __post_init__(self) -> None:
        if not math.isclose(self.split.total, self.usd_per_h, rel_tol=CENT_TOLERANCE, abs_tol=CENT_TOLERANCE):
            raise ValueError(f"{self.name}: the cash view says {self.usd_per_h}, the use view {self.split.total}")

    @property
    def title(self) -> str:
        """Its name, with the pool it is for: of one bill no two lines have the same."""
        return f"{self.name}, {self.pool} pool" if self.pool else self.name


def number(value: float) -> str:
    """A number as formulas print it: six digits, thousands separated.

    >>> number(8760), number(0.0870), number(12345678.9)
    ('8,760', '0.087', '12,345,679')
    """
    return f"{value:,.0f}" if abs(value) >= 1e6 or value == round(value) else f"{value:,.6g}"


def dollars(value: float) -> str:
    """Dollars as formulas print them, all digits that matter.

    >>> dollars(2.31), dollars(356250)
    ('$2.31', '$356,250')
    """
    return f"${number(value)}"


@lru_cache(maxsize=4096)
def cite(figure: Figure | None) -> str:
    """Where a figure is from: kind, range where there is one, date, reference; None was given by the user.

    >>> cite(None)
    'given'
    """
    if figure is None:
        return "given"
    span = f" {number(figure.low)} to {number(figure.high)}," if figure.low < figure.high else ""
    return f"{figure.source.label},{span} {figure.as_of}: {figure.reference}"


@made_once
def cite_rates(economics: Economics, *names: str) -> str:
    """The sources of several rates, each by its field's name."""
    return "; ".join(f"{name}: {cite(economics.figures.get(name))}" for name in names)

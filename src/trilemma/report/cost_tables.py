"""Tables, bars and paragraphs that stay inside a width."""

import textwrap
from collections.abc import Mapping, Sequence
from math import floor, log10

from trilemma.report.table import aligned

LEAST_NAME = 6  # characters of the first column that are kept however narrow the screen is


def fitted(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, left: Sequence[int] = (0,)) -> str:
    """An aligned table no wider than `width`: the columns that do not fit stand below, the first one repeated.

    Columns are right-aligned but for those in `left`.

    >>> print(fitted(["offer", "$/h", "$/Mtok"], [["owned", "9.50", "3.20"]], width=14))
    offer   $/h
    -----  ----
    owned  9.50
    <BLANKLINE>
    offer  $/Mtok
    -----  ------
    owned    3.20
    """
    widths = [max(len(header[i]), *(len(row[i]) for row in rows), 1) if rows else len(header[i]) for i in _of(header)]
    widest_other = max(widths[1:], default=0)
    name_width = max(LEAST_NAME, min(widths[0], width - widest_other - 2))
    chunks: list[list[int]] = [[]]
    used = name_width
    for i in _of(header)[1:]:
        if chunks[-1] and used + 2 + widths[i] > width:
            chunks.append([])
            used = name_width
        chunks[-1].append(i)
        used += 2 + widths[i]
    tables = []
    for chunk in chunks:
        columns = [0, *chunk]
        cells = [[_cut(row[0], name_width), *(_cut(row[i], width) for i in chunk)] for row in rows]
        names = [_cut(header[0], name_width), *(header[i] for i in chunk)]
        tables.append(aligned(names, cells, right=[i not in left for i in columns]))
    return "\n\n".join(tables)


def _of(header: Sequence[str]) -> list[int]:
    return list(range(len(header)))


def _cut(text: str, width: int) -> str:
    """The text, its end replaced by dots where it is too long.

    >>> _cut("mi300x/reserved-1y", 10), _cut("owned", 10)
    ('mi300x/...', 'owned')
    """
    return text if len(text) <= width else text[: width - 3] + "..."


def wrapped(text: str, *, width: int, bullet: str = "") -> str:
    """A paragraph; its later lines stand under the text behind the bullet.

    >>> print(wrapped("a paragraph that is too long", width=20, bullet="- "))
    - a paragraph that
      is too long
    """
    return textwrap.fill(
        text, width=max(20, width), initial_indent=bullet, subsequent_indent=" " * len(bullet), break_on_hyphens=False
    )


def bullets(texts: Sequence[str], *, width: int) -> str:
    """A paragraph each, behind dashes."""
    return "\n".join(wrapped(text, width=width, bullet="- ") for text in texts)


def bar(low: float, high: float, *, ends: tuple[float, float], mark: float, width: int) -> str:
    """A bar from low to high on an axis between `ends`, with a mark.

    >>> bar(2.0, 6.0, ends=(0.0, 10.0), mark=5.0, width=11)
    '..###|#....'
    """
    first, last = ends
    span = last - first or 1.0

    def place(value: float) -> int:
        return min(width - 1, max(0, round((value - first) / span * (width - 1))))

    cells = ["#" if place(low) <= i <= place(high) else "." for i in range(width)]
    cells[place(mark)] = "|"
    return "".join(cells)


def usd(value: float | None) -> str:
    """Dollars for a table: cents below a thousand, three digits below ten cents.

    >>> usd(2.5), usd(1234.5), usd(0.0123), usd(None), usd(0.0)
    ('2.50', '1,234', '0.0123', '-', '0.00')
    """
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 0.0995 or abs(value) < 1e-9:
        return f"{value:,.2f}"
    return f"{value:.{2 - floor(log10(abs(value)))}f}"


def down(value: float) -> str:
    """Dollars rounded down, so that a price that has to be at most so much still is.

    >>> down(2.3199), down(214567.8), down(0.045678)
    ('$2.31', '$214,567', '$0.0456')
    """
    digits = 0 if value >= 1000 else 2 if value >= 0.1 or value <= 0 else 2 - floor(log10(value))
    return f"${floor(value * 10**digits * (1 + 1e-12)) / 10**digits:,.{digits}f}"


def tokens(count: float) -> str:
    """A number of tokens, three digits.

    >>> tokens(59_340_000), tokens(1_234), tokens(0)
    ('59.3M', '1,234', '0')
    """
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if count >= 0.9995 * scale:
            return f"{count / scale:.3g}{unit}"
    return f"{count:,.0f}"


def percent(share: float) -> str:
    """A share in whole percent, what is little but not nothing as such.

    >>> percent(0.914), percent(0.004), percent(0.0)
    ('91%', '<1%', '0%')
    """
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def shortened(text: str, names: Mapping[str, str]) -> str:
    """The text with long names replaced by short ones."""
    for name, short in names.items():
        text = text.replace(name, short)
    return text

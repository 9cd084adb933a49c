"""Plain aligned tables."""

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> str:
    """Rows of cells under a header, two spaces between columns; `right` says which columns align right.

    >>> print(aligned(["offer", "$/h"], [["owned", "9.50"], ["spot", "12.00"]], right=[False, True]))
    offer    $/h
    -----  -----
    owned   9.50
    spot   12.00
    """
    sides = list(right) + [False] * (len(header) - len(right))
    widths = [max(len(name), *(len(row[i]) for row in rows)) if rows else len(name) for i, name in enumerate(header)]

    def line(cells: Sequence[str]) -> str:
        triples = zip(cells, widths, sides, strict=True)
        return "  ".join(c.rjust(w) if to_right else c.ljust(w) for c, w, to_right in triples).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *(line(row) for row in rows)])

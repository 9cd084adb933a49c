"""What the comparisons with measured runs share: reading tables, errors by group, printing, results as CSV or JSON."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def arguments(about: str, **more: Mapping[str, Any]) -> argparse.Namespace:
    """FILE... --json --rows PATH, and one flag for each of `more` (name: what argparse's add_argument takes)."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="tables of measured runs")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--rows", type=Path, help="write one line per run, measured and predicted, to this CSV file")
    for name, options in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    return parser.parse_args()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table, every cell as text."""
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def number(text: str | None) -> float:
    """A cell as a number; NaN where it is empty or says no number."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def write_rows(path: Path | None, rows: Sequence[Row]) -> None:
    """One line per row, columns in the order in which they first appear."""
    if path is None or not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, names)
        writer.writeheader()
        writer.writerows(rows)


def ratios(rows: Iterable[Row], name: str) -> np.ndarray:
    """(n,) predicted / measured of the rows that have both, positive."""
    pairs = np.array([[row.get(f"predicted_{name}", np.nan), row.get(f"measured_{name}", np.nan)] for row in rows])
    if not pairs.size:
        return np.zeros(0)
    pairs = pairs.astype(float)
    known = np.isfinite(pairs).all(axis=1) & (pairs > 0).all(axis=1)
    return pairs[known, 0] / pairs[known, 1]


def errors(rows: Sequence[Row], names: Sequence[str]) -> Row:
    """Rows and, for each name, mean and median absolute relative error and the median signed one, in percent."""
    found: Row = {"rows": len(rows)}
    for name in names:
        ratio = ratios(rows, name)
        if ratio.size:
            found[f"{name}_mape"] = 100 * float(np.abs(ratio - 1).mean())
            found[f"{name}_median"] = 100 * float(np.median(np.abs(ratio - 1)))
            found[f"{name}_bias"] = 100 * float(np.median(ratio - 1))
    return found


def grouped(rows: Sequence[Row], names: Sequence[str], by: Mapping[str, Callable[[Row], Any]]) -> dict[str, list[Row]]:
    """Errors of all rows and by each of `by` (name: what to group by)."""
    tables = {"all": [{"group": "all"} | errors(rows, names)]}
    for label, key in by.items():
        kinds = sorted({key(row) for row in rows}, key=lambda kind: (str(type(kind)), kind))
        tables[label] = [{"group": str(kind)} | errors([r for r in rows if key(r) == kind], names) for kind in kinds]
    return tables


def show(tables: Mapping[str, Sequence[Row]], *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Print groups of rows as tables, or with `more` as one JSON document."""
    if as_json:
        json.dump({**tables, **(more or {})}, sys.stdout, indent=1, default=str)
        print()
        return
    for label, rows in tables.items():
        print(f"\n{label}")
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [names] + [[_cell(row.get(name)) for name in names] for row in rows]
        widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
        for first, *others in cells:
            print(
                f"{first:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(others, widths[1:], strict=True)), sep="  "
            )
    for label, value in (more or {}).items():
        print(f"\n{label}")
        for name, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            print(f"  {one}  {name}" if isinstance(one, int) else f"  {name}  {one}".rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.1f}"
    return str(value)

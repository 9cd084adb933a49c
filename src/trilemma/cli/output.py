"""Results to stdout or a file, as a table, JSON, CSV or YAML; a file is written whole or not at all."""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from trilemma.errors import InputError

Row = Mapping[str, object]


class Format(StrEnum):
    """Forms a result can take."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    YAML = "yaml"


def emit(
    rows: Sequence[Row],
    *,
    output: Format | None,
    output_file: Path | None,
    document: object = None,
    text: Callable[[], str] | None = None,
) -> None:
    """Prints a result or writes it to `output_file`.

    `rows` are what CSV and the table show, `document` what JSON and YAML hold (the rows where None), `text` makes the
    words that stand in place of a plain table. Without `output` the file's ending decides, then it is a table.
    """
    form = output or _form_of(output_file) or Format.TABLE
    content = plain(list(rows) if document is None else document)
    if form is Format.JSON:
        shown = json_text(content)
    elif form is Format.YAML:
        import yaml

        shown = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    elif form is Format.CSV:
        shown = csv_text(rows)
    else:
        shown = text() if text is not None else table_text(rows)
    shown = shown if shown.endswith("\n") or not shown else shown + "\n"
    if output_file is not None and str(output_file) != "-":
        write_whole(output_file, shown)
    else:
        sys.stdout.write(shown)
        sys.stdout.flush()


def _form_of(path: Path | None) -> Format | None:
    """The form a file's ending asks for."""
    ending = path.suffix.removeprefix(".").lower() if path is not None else ""
    return Format("yaml" if ending == "yml" else ending) if ending in {*Format, "yml"} else None


def plain(value: object) -> object:
    """`value` in JSON's types: NaN and infinities become None, arrays lists, dates and paths text.

    >>> plain({"p99_s": float("nan"), "sizes": (1, 2.5)})
    {'p99_s': None, 'sizes': [1, 2.5]}
    """
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(child) for child in value]
    return str(value)


def json_text(value: object) -> str:
    """Strict JSON: no NaN, no infinity."""
    import json

    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """All column names, in the order they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def csv_text(rows: Sequence[Row]) -> str:
    """Comma-separated rows with a header; what is unknown stays empty."""
    import csv
    import io
    import json

    def cell(value: object) -> object:
        value = plain(value)
        return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value

    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def table_text(rows: Sequence[Row]) -> str:
    """Aligned columns, numbers to the right; a dash where there is no value.

    >>> print(table_text([{"name": "h100_sxm", "watts": 700}, {"name": "l4", "watts": None}]))
    name      watts
    --------  -----
    h100_sxm    700
    l4            -
    """
    if not rows:
        return "nothing found"
    names = columns_of(rows)
    cells = [[show_cell(row.get(name)) for name in names] for row in rows]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]

    def line(texts: Sequence[str]) -> str:
        pairs = zip(texts, widths, right, strict=True)
        return "  ".join(text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in pairs)

    return "\n".join(line(texts).rstrip() for texts in (names, ["-" * width for width in widths], *cells))


def pairs(document: Mapping[str, object], *, prefix: str = "") -> list[Row]:
    """A nested result as rows of key and value, keys dotted.

    >>> pairs({"rate": {"mean_rps": 5.5}})
    [{'key': 'rate.mean_rps', 'value': 5.5}]
    >>> pairs({"limits": [{"met": True}]})
    [{'key': 'limits[0].met', 'value': True}]
    """
    rows: list[Row] = []
    for name, value in document.items():
        listed = value if isinstance(value, list | tuple) else ()
        if isinstance(value, Mapping) and value:
            rows += pairs(value, prefix=f"{prefix}{name}.")
        elif listed and all(isinstance(child, Mapping) for child in listed):
            for i, child in enumerate(listed):
                rows += pairs(child, prefix=f"{prefix}{name}[{i}].")
        else:
            rows.append({"key": f"{prefix}{name}", "value": value})
    return rows


def show_cell(value: object) -> str:
    """One value for a table: four significant digits, all digits of whole numbers.

    >>> show_cell(0.123456), show_cell(163840.0), show_cell(True), show_cell(["a", "b"]), show_cell(None)
    ('0.1235', '163,840', 'yes', 'a, b', '-')
    """
    value = plain(value)
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(show_cell(child) for child in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={show_cell(child)}" for key, child in value.items()) or "-"
    return str(value)


def write_whole(path: Path, text: str) -> None:
    """Writes `text` beside `path` and renames it into place, so that no half-written file is ever seen.

    What is no regular file (a pipe, a device) is written to directly. Raises InputError where it cannot be written.
    """
    target = path.resolve()
    if not target.name or target.is_dir():
        raise InputError(f"--output-file {path}", expected="a file to write", found="a folder")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_text(text, encoding="utf-8")
            return
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--output-file {path}", expected="a file to write", found=str(error.strerror)) from None

"""A run as tables in files: one row a request, or one an interval; Parquet, Arrow IPC or CSV by the file's ending."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trilemma.errors import InputError, UnsupportedError
from trilemma.metrics.outcomes import STATUSES, WAIT_REASONS, Outcomes
from trilemma.metrics.series import Series
from trilemma.report.files import check_writable, whole_file

SUFFIXES: Final = (".parquet", ".arrow", ".csv")
_CSV_ROWS: Final = 65_536  # written at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A column of words: codes (n,) into `names`."""

    codes: npt.NDArray[np.int8]
    names: tuple[str, ...]


Column = npt.NDArray[Any] | Words
Columns = Mapping[str, Column]


def request_columns(outcomes: Outcomes) -> dict[str, Column]:
    """One value a request, in the order of the workload; times in seconds, NaN where there is none."""
    timings = outcomes.timings
    columns: dict[str, Column] = {
        "request": np.arange(len(outcomes)),
        "arrival_s": timings.arrival_s,
        "queued_s": outcomes.queued_s,
        "ttft_s": timings.ttft_s,
        "tpot_s": timings.tpot_s,
        "e2e_s": timings.e2e_s,
        "prompt_tokens": timings.prompt_tokens,
        "output_tokens": timings.output_tokens,
        "hit_tokens": outcomes.hit_tokens,
        "preemptions": timings.preemptions,
        "recomputed_tokens": timings.recomputed_tokens,
        "replica": outcomes.replica,
        "wait_reason": Words(codes=outcomes.wait_reason, names=WAIT_REASONS),
        "status": Words(codes=outcomes.status, names=STATUSES),
    }
    return columns if outcomes.session is None else columns | {"session": outcomes.session}


def series_columns(series: Series, power_w: npt.NDArray[np.float64] | None = None) -> dict[str, Column]:
    """One value an interval; `power_w` (k,) is that of all replicas, where known."""
    columns: dict[str, Column] = {
        "time_s": series.time_s,
        "length_s": series.length_s,
        "running": series.running,
        "waiting": series.waiting,
        "kv_share": series.kv_share,
        "arrivals": series.arrivals,
        "answers": series.answers,
        "prefill_tokens_per_s": series.prefill_tokens_per_s,
        "decode_tokens_per_s": series.decode_tokens_per_s,
        "prefill_share": series.prefill_share,
        "decode_share": series.decode_share,
        "idle_share": series.idle_share,
        "hit_share": series.hit_share,
    }
    return columns if power_w is None else columns | {"power_w": power_w}


def check_table_file(path: Path, *, where: str) -> None:
    """Whether `write_table` could write here: InputError for an unknown ending or a place that cannot be written to,
    UnsupportedError where the format's library is missing. `where` is the flag that gave the path."""
    if _suffix(path) not in SUFFIXES:
        expected = f"a file ending in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise InputError(f"{where} {path}", expected=expected, found=repr(path.suffix))
    if _suffix(path) != ".csv" and find_spec("pyarrow") is None:
        raise UnsupportedError(
            f"{where} {path}: {_suffix(path)} files need pyarrow: install trilemma[arrow], or write a .csv file"
        )
    check_writable(path, where=where)


def write_table(path: Path, columns: Columns, *, where: str, about: Mapping[str, str] | None = None) -> None:
    """Writes columns of equal length under `path`, whole or not at all; NaN becomes an empty cell, or null.

    `about` goes into the metadata of Parquet and Arrow files. Raises as `check_table_file`.
    """
    check_table_file(path, where=where)
    with whole_file(path, where=where) as temporary:
        if _suffix(path) == ".csv":
            _write_csv(temporary, columns)
        else:
            _write_arrow(temporary, columns, about or {}, parquet=_suffix(path) == ".parquet")


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _write_csv(path: Path, columns: Columns) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        n = max((_length(column) for column in columns.values()), default=0)
        for low in range(0, n, _CSV_ROWS):
            cells = [_cells(column, slice(low, low + _CSV_ROWS)) for column in columns.values()]
            writer.writerows(zip(*cells, strict=True))


def _length(column: Column) -> int:
    return int(column.codes.size if isinstance(column, Words) else column.size)


def _cells(column: Column, rows: slice) -> Sequence[object]:
    if isinstance(column, Words):
        return [column.names[code] for code in column.codes[rows].tolist()]
    values: list[object] = column[rows].tolist()
    if column.dtype.kind == "f":
        return ["" if value != value else value for value in values]  # noqa: PLR0124 - NaN alone differs from itself
    return values


def _write_arrow(path: Path, columns: Columns, about: Mapping[str, str], *, parquet: bool) -> None:
    import pyarrow as pa

    arrays = []
    for column in columns.values():
        if isinstance(column, Words):
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(column.codes), list(column.names)))
        else:
            arrays.append(pa.array(column, from_pandas=True))  # from_pandas: NaN as null
    table = pa.table(arrays, names=list(columns)).replace_schema_metadata(dict(about))
    if parquet:
        import pyarrow.parquet as pq

        pq.write_table(table, path, compression="zstd")
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1 << 20)

"""The CSV files `predict` reads, and the columns it adds to them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from trilemma.errors import InputError, did_you_mean

REQUIRED: Final = ("model", "system", "engine", "precision", "isl", "osl", "concurrency", "tp")
OPTIONAL: Final = ("id", "engine_version", "length_ratio_low", "gpus", "dp", "ep", "pp", "speculative", "measured_on")
MEASURED: Final = ("ttft_ms", "tpot_ms")
PREDICTED: Final = (
    "predicted_ttft_ms", "predicted_ttft_ms_low", "predicted_ttft_ms_high",
    "predicted_tpot_ms", "predicted_tpot_ms_low", "predicted_tpot_ms_high", "predicted_tpot_ms_safe",
    "predicted_tok_s_per_gpu", "predicted_tok_s_per_gpu_low", "predicted_tok_s_per_gpu_high",
    "source", "note",
)  # fmt: skip

TextRow = dict[str, str]


def read_rows(path: Path, renamed: Mapping[str, str]) -> tuple[list[TextRow], list[TextRow]]:
    """The rows as they stand in the file, and the same rows under our column names (`renamed`: theirs to ours).

    Raises InputError naming file, line and column for a file that is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, None)
            if not header or not any(header):
                raise InputError(str(path), expected="a CSV file with a header", found="an empty file")
            ours = _our_header(header, renamed, place=str(path))
            theirs_rows, our_rows = [], []
            for line in lines:
                if not line:
                    continue
                if len(line) != len(header):
                    place = f"{path}:{lines.line_num}"
                    raise InputError(place, expected=f"{len(header)} columns", found=str(len(line)))
                theirs_rows.append(dict(zip(header, line, strict=True)))
                our_rows.append(dict(zip(ours, line, strict=True)))
    except OSError as error:
        raise InputError(str(path), expected="a readable CSV file", found=str(error.strerror).lower()) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(str(path), expected="a CSV file in UTF-8", found=str(error)) from None
    if not our_rows:
        raise InputError(str(path), expected="at least one row below the header", found="none")
    return theirs_rows, our_rows


def _our_header(header: Sequence[str], renamed: Mapping[str, str], *, place: str) -> list[str]:
    """Each column's name in our words."""
    known = (*REQUIRED, *OPTIONAL, *MEASURED)
    for theirs, our in renamed.items():
        if theirs not in header:
            raise InputError(
                "--map", expected=f"a column of {place}", found=repr(theirs), hint=did_you_mean(theirs, header)
            )
        if our not in known:
            raise InputError(
                "--map", expected=f"one of {', '.join(known)}", found=repr(our), hint=did_you_mean(our, known)
            )
    names = [renamed.get(name, name) for name in header]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{place}:1", expected="each column once", found=f"{twice[0]!r} twice")
    if missing := [name for name in REQUIRED if name not in names]:
        hint = did_you_mean(missing[0], [name for name in header if name not in known])
        raise InputError(
            f"{place}:1",
            expected=f"the columns {', '.join(REQUIRED)}",
            found=f"no {', '.join(missing)}",
            hint=f"{hint} --map THEIRS={missing[0]} names it" if hint else f"--map THEIRS={missing[0]} names it",
        )
    return names


def predicted_rows(theirs: Sequence[TextRow], predicted: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The file's own columns with the predicted ones behind them, row by row."""
    if len(theirs) != len(predicted):
        raise ValueError(f"{len(theirs)} rows in, {len(predicted)} predictions out")
    return [
        {**row, **{name: prediction.get(name) for name in PREDICTED}}
        for row, prediction in zip(theirs, predicted, strict=True)
    ]

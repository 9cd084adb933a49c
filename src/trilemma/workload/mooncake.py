"""Mooncake traces: JSON lines with arrival in ms, lengths and the ids of 512-token prefix blocks.

The published ones record arrivals in bins about 3 s wide. Taken as they are, each bin would be a burst that never
happened, so requests are spread over their bin.
"""

import itertools
import json
from typing import Any, Final

import numpy as np

from trilemma.errors import InputError
from trilemma.workload.requests import FloatArray, IntArray
from trilemma.workload.streams import stream
from trilemma.workload.trace_file import TraceText
from trilemma.workload.trace_rows import TraceRows, whole_tokens

BLOCK_TOKENS: Final = 512
_NEEDED = ("timestamp", "input_length", "output_length")
_BLOCKS = "hash_ids"
_MS_PER_S = 1000.0
# A clock is taken for binned from this many bins, requests per bin and seconds per bin on.
_FEWEST_BINS, _FEWEST_PER_BIN, _NARROWEST_BIN_S = 5, 2.0, 1.0


def further_keys(line: str) -> list[str] | None:
    """The keys of a first line beside Mooncake's own; None where it is no JSON object with those.

    >>> further_keys('{"timestamp": 0, "input_length": 9, "output_length": 1, "chat_id": 7}')
    ['chat_id']
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not set(_NEEDED) <= row.keys():
        return None
    return sorted(row.keys() - {*_NEEDED, _BLOCKS})


def looks_like_mooncake(line: str) -> bool:
    """Whether a first line is a JSON object with Mooncake's keys and no others.

    Others publish the same keys with seconds or other block sizes, and a key of their own beside them.
    """
    return further_keys(line) == []


def read_mooncake_rows(text: TraceText) -> TraceRows:
    """The rows of a Mooncake trace; raises InputError naming the line of a malformed one."""
    numbers = [i + 1 for i, line in enumerate(text.lines) if line and not line.isspace()]
    rows = _parse(text, numbers)
    try:
        milliseconds, prompt, output = (np.array([row[key] for row in rows]) for key in _NEEDED)
        blocks = [row[_BLOCKS] for row in rows] if _BLOCKS in rows[0] else None
        plain = milliseconds.dtype.kind in "if" and prompt.dtype.kind == output.dtype.kind == "i"
        ids, counts = _flatten(blocks) if blocks is not None else (None, None)
    except (KeyError, TypeError, ValueError, OverflowError):
        plain = False
    if not plain:
        milliseconds, prompt, output, ids, counts = _read_careful(text, numbers, rows)
    lines = np.array(numbers, dtype=np.int64)
    if ids is not None and counts is not None:
        _check_blocks(text.place, lines, prompt, ids, counts)
    return TraceRows(
        place=text.place,
        columns=_NEEDED,
        seconds=milliseconds / _MS_PER_S,
        prompt_tokens=prompt.astype(np.int64),
        output_tokens=output.astype(np.int64),
        line_numbers=lines,
        block_offsets=None if counts is None else np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        block_ids=ids,
        block_tokens=0 if ids is None else BLOCK_TOKENS,
    )


def spread_bins(arrival_s: FloatArray, seed: int) -> tuple[FloatArray, str] | None:
    """(n,) ordered -> (n,) ordered times inside their bins, and a notice; None where the clock is not binned.

    A bin reaches to the next recorded time, at most the usual width (the median); within it times are uniform and
    requests keep their order.
    """
    starts, which, sizes = np.unique(arrival_s, return_inverse=True, return_counts=True)
    if starts.size < _FEWEST_BINS or arrival_s.size < _FEWEST_PER_BIN * starts.size:
        return None
    usual_s = float(np.median(np.diff(starts)))
    if usual_s < _NARROWEST_BIN_S:
        return None
    widths = np.minimum(np.diff(starts, append=starts[-1] + usual_s), usual_s)
    inside = stream(seed, "mooncake.spread").random(arrival_s.size)
    spread = np.sort(arrival_s + inside * widths[which.reshape(-1)])
    notice = (
        f"{arrival_s.size:,} arrivals share {starts.size:,} recorded times about {usual_s:.3g} s apart"
        f" (up to {int(sizes.max())} at once); each is spread over its bin (seed {seed})"
    )
    return spread, notice


def _parse(text: TraceText, numbers: list[int]) -> list[dict[str, Any]]:
    """One object per line; all lines at once, and one by one only to find the bad one."""
    lines = [text.lines[number - 1] for number in numbers]
    try:
        rows = json.loads(f"[{','.join(lines)}]")
        if len(rows) == len(lines) and all(isinstance(row, dict) for row in rows):
            return list(rows)
    except (ValueError, RecursionError):
        pass
    rows = []
    for line, number in zip(lines, numbers, strict=True):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            where = f"{text.place}:{number}"
            raise InputError(where, expected="a JSON object on one line", found=repr(line[:80]))
        rows.append(row)
    return rows


def _flatten(blocks: list[list[int]]) -> tuple[IntArray, IntArray]:
    """Ids one after the other and how many each row has; raises TypeError for anything but 64-bit whole numbers."""
    flat = list(itertools.chain.from_iterable(blocks))
    ids = np.array(flat) if flat else np.zeros(0, dtype=np.int64)
    if ids.dtype.kind != "i":
        raise TypeError("ids are whole numbers")
    return ids.astype(np.int64), np.array([len(row) for row in blocks], dtype=np.int64)


def _read_careful(
    text: TraceText, numbers: list[int], rows: list[dict[str, Any]]
) -> tuple[FloatArray, IntArray, IntArray, IntArray | None, IntArray | None]:
    """Row by row, so that the line of a malformed one can be named."""
    times: list[float] = []
    lengths: dict[str, list[int]] = {key: [] for key in _NEEDED[1:]}
    blocks: list[list[int]] = []
    with_blocks = _BLOCKS in rows[0]
    for row, number in zip(rows, numbers, strict=True):
        where = f"{text.place}:{number}"
        if missing := [key for key in _NEEDED if key not in row]:
            raise InputError(where, expected=f"the keys {', '.join(_NEEDED)}", found=f"no {', '.join(missing)}")
        stamp = row["timestamp"]
        if isinstance(stamp, bool) or not isinstance(stamp, int | float):
            raise InputError(where, expected="timestamp in milliseconds", found=repr(stamp)[:80])
        times.append(float(stamp) if abs(stamp) < 1e300 else float("inf"))
        for key, column in lengths.items():
            try:
                column.append(whole_tokens(row[key]))
            except ValueError:
                found = repr(row[key])[:80]
                raise InputError(where, expected=f"a whole number in {key}", found=found) from None
        if (_BLOCKS in row) != with_blocks:
            raise InputError(where, expected=f"{_BLOCKS} on each line or on none", found="both")
        if with_blocks:
            blocks.append(_block_list(row[_BLOCKS], where))
    prompt, output = (np.array(column, dtype=np.int64) for column in lengths.values())
    return np.array(times), prompt, output, *(_flatten(blocks) if with_blocks else (None, None))


def _block_list(value: object, where: str) -> list[int]:
    good = isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)
    if not good:
        found = repr(value)[:80]
        raise InputError(where, expected=f"{_BLOCKS} as a list of whole numbers from 0 to 2^63 - 1", found=found)
    assert isinstance(value, list)
    return value


def _check_blocks(place: str, lines: IntArray, prompt: IntArray, ids: IntArray, counts: IntArray) -> None:
    """A prompt cannot have more blocks than it fills, and ids are not negative."""
    if ids.size and ids.min() < 0:
        row = int(np.searchsorted(np.cumsum(counts), int(np.argmax(ids < 0)), side="right"))
        raise InputError(f"{place}:{lines[row]}", expected=f"{_BLOCKS} from 0 up", found=str(ids.min()))
    most = -(-prompt // BLOCK_TOKENS)
    if (counts > most).any():
        row = int(np.argmax(counts > most))
        raise InputError(
            f"{place}:{lines[row]}",
            expected=f"at most {most[row]} {_BLOCKS} of {BLOCK_TOKENS} tokens for a prompt of {prompt[row]}",
            found=str(counts[row]),
        )

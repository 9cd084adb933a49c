"""A simulated run over time: as plain columns for documents, as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trilemma.metrics.series import Series
from trilemma.report.table import aligned
from trilemma.units import show_time

SHOWN_INTERVALS: Final = 12
SUMS: Final = ("length_s", "arrivals", "answers", "started_tokens", "hit_tokens")
OPTIONAL: Final = ("hit_share", "power_w")
# Heading, key and form of what the table shows.
SHOWN: Final = (
    ("running", "running", "{:,.1f}"), ("waiting", "waiting", "{:,.1f}"), ("KV used", "kv_share", "{:.0%}"),
    ("prefill tok/s", "prefill_tokens_per_s", "{:,.0f}"), ("decode tok/s", "decode_tokens_per_s", "{:,.0f}"),
    ("prefill", "prefill_share", "{:.0%}"), ("decode", "decode_share", "{:.0%}"), ("idle", "idle_share", "{:.0%}"),
    ("hits", "hit_share", "{:.0%}"), ("W", "power_w", "{:,.0f}"),
)  # fmt: skip


def series_dict(series: Series, power_w: Sequence[float] | None = None) -> dict[str, Any]:
    """A series as columns of equal length: docs/guide/output.md says what each holds; None where nothing is known."""
    columns = {
        "time_s": series.time_s.tolist(),
        "length_s": series.length_s.tolist(),
        "running": series.running.tolist(),
        "waiting": series.waiting.tolist(),
        "kv_share": series.kv_share.tolist(),
        "arrivals": series.arrivals.tolist(),
        "answers": series.answers.tolist(),
        "prefill_tokens_per_s": series.prefill_tokens_per_s.tolist(),
        "decode_tokens_per_s": series.decode_tokens_per_s.tolist(),
        "prefill_share": series.prefill_share.tolist(),
        "decode_share": series.decode_share.tolist(),
        "idle_share": series.idle_share.tolist(),
        "started_tokens": series.started_tokens.tolist(),
        "hit_tokens": series.hit_tokens.tolist(),
    }
    power = {} if power_w is None else {"power_w": [float(value) for value in power_w]}
    return {"resolution_s": series.resolution_s} | columns | power


def series_text(columns: Mapping[str, Any], most: int = SHOWN_INTERVALS) -> str:
    """A series (as `series_dict` gives it) as a table of at most `most` intervals, each the mean of several.

    >>> print(series_text({key: [0.0, 1.0] for key in ("time_s", "running", "waiting", "kv_share",
    ...     "prefill_tokens_per_s", "decode_tokens_per_s", "prefill_share", "decode_share", "idle_share",
    ...     "started_tokens", "hit_tokens")} | {"length_s": [1.0, 1.0]}, most=1))
    from  running  waiting  KV used  prefill tok/s  decode tok/s  prefill  decode  idle  hits
    ----  -------  -------  -------  -------------  ------------  -------  ------  ----  ----
     0 s      0.5      0.5      50%              0             0      50%     50%   50%  100%
    """
    rows = _coarse(columns, most)
    kept = [column for column in SHOWN if column[1] not in OPTIONAL or any(row.get(column[1]) for row in rows)]
    cells = [
        [show_time(row["time_s"])] + ["-" if row[key] is None else form.format(row[key]) for _, key, form in kept]
        for row in rows
    ]
    return aligned(["from", *(name for name, _, _ in kept)], cells, right=[True] * (1 + len(kept)))


def _coarse(columns: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """At most `most` rows: sums where something is counted, means over time of the rest."""
    lengths = columns["length_s"]
    each = max(1, -(-len(lengths) // most))
    rows = []
    for low in range(0, len(lengths), each):
        part = slice(low, low + each)
        whole_s = sum(lengths[part])
        row: dict[str, Any] = {}
        for key, values in columns.items():
            if key == "time_s":
                row[key] = values[low]
            elif key in SUMS:
                row[key] = sum(values[part])
            elif isinstance(values, Sequence):
                weighted = (value * length for value, length in zip(values[part], lengths[part], strict=True))
                row[key] = sum(weighted) / whole_s if whole_s else 0.0
        row["hit_share"] = row["hit_tokens"] / row["started_tokens"] if row["started_tokens"] else None
        rows.append(row)
    return rows

"""What a number format costs in accuracy: measured scores after quantisation as a share of those before.

Rows live in data/quality.toml, written by benchmarks/rebuild_quality.py from published benchmark scores, by scheme and
by size of the model. Where nobody published a score there is no row and no number.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from trilemma.catalogue.figure import Source
from trilemma.catalogue.names import key_of

FILE = "quality.toml"
# Upper bounds in parameters. Between the sizes that names carry, so that "3B" with 3.2e9 parameters is in the first
# class and "15B" with 15.96e9 in the second.
SIZE_CLASSES: Mapping[str, float] = {
    "up_to_3b": 3.5e9,
    "4b_to_15b": 16e9,
    "16b_to_75b": 75e9,
    "above_75b": float("inf"),
}
FP8_KV = "fp8_kv"  # beside the precisions of the catalogue: a KV cache in FP8


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Benchmark scores that a precision keeps, in percent of the score before quantisation.

    `recovery_pct` is the mean over `count` scores of `models` models, `low` and `high` their 10% and 90% quantiles: the
    spread over benchmarks, noise of their own included, which is why some lie above 100. `note` says what to know of
    the rows; `reference` names who published them.
    """

    recovery_pct: float
    low: float
    high: float
    count: int
    models: int
    source: Source
    as_of: str
    reference: str
    note: str = ""

    @property
    def loss_pct(self) -> float:
        """Mean loss in percent of the unquantised score, at least 0: what a bound on accuracy loss is compared with."""
        return max(0.0, 100 - self.recovery_pct)


def size_class(total_params: float) -> str:
    """The table's size class of a model with `total_params` parameters; ValueError unless they are above 0.

    >>> size_class(8.03e9)
    '4b_to_15b'
    """
    if not total_params > 0:
        raise ValueError(f"a model has a number of parameters above 0, found {total_params!r}")
    return next(name for name, most in SIZE_CLASSES.items() if total_params <= most)


def quality_of(precision: str, total_params: float) -> Quality | None:
    """What `precision` keeps of the scores of models with `total_params` parameters; None where nothing is measured.

    `precision` is the name of a catalogue precision ("fp8", "int4"), FP8_KV, or one of the schemes the catalogue has
    no precision for ("int8_w8a16", "int4_w4a8"). The rows are of models published in 16 bits, and a few in FP8:
    a checkpoint in its own precision has nothing to lose, and the caller is to know that.
    """
    row = _tables()["schemes"].get(key_of(precision), {}).get(size_class(total_params))
    return None if row is None else _quality(row)


def schemes() -> tuple[str, ...]:
    """Names that `quality_of` has at least one row for."""
    return tuple(_tables()["schemes"])


def _quality(row: Mapping[str, Any]) -> Quality:
    tables = _tables()
    return Quality(
        recovery_pct=row["recovery_pct"],
        low=row["low"],
        high=row["high"],
        count=row["count"],
        models=row["models"],
        source=Source[tables["source"].upper()],
        as_of=tables["as_of"],
        reference="; ".join(tables["references"][key] for key in row["references"]),
        note=row.get("note", ""),
    )


@cache
def _tables() -> dict[str, Any]:
    text = resources.files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8")
    return tomllib.loads(text)

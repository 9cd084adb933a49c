"""Watts and joules of a step: a GPU draws by what it waits for.

Over a step a GPU draws

    w = idle + (limit - idle) x sum over states of (share of the step's time in the state x the state's share)

smoothly capped at what the power limit lets through, with four states: streaming from HBM, multiplying, moving data
over links, and waiting (launches, gaps, the host). A state's share says how far above idle it lies on the way to the
limit, and may exceed 1: a step that multiplies for two thirds of its time can already be held back by the limit. Shares
live in catalogue/data/power.toml, written by benchmarks/fit_power.py from measured kernels and serving runs; an
accelerator without measurements takes its family's, else the mean of the measured ones, on its own idle and limit.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.figure import Source
from trilemma.latency.step import StepTerms

FILE = "power.toml"
STATES = ("hbm", "flops", "link", "waiting")
# What binds a term (StepTerms.binds) -> the state it is in; anything else leaves the GPU waiting.
STATE_OF: Mapping[str, str] = {"HBM bandwidth": "hbm", "FLOPs": "flops", "link": "link", "network": "link"}
CAP_SHARPNESS = 10.0  # w and the cap meet as (w^-p + cap^-p)^(-1/p): 7% under the cap where they are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerShares:
    """How far above idle an accelerator draws in each state: shares of the way from `idle_w` to `tdp_w`.

    `cap` is the share of `tdp_w` that sustained work reaches. `spread` holds the 10% and 90% quantiles of measured /
    predicted watts over runs of models left out of the fit. `source` is FITTED where the accelerator itself was
    measured, DERIVED where a relative's shares stand in, GUESS where none is known.
    """

    hbm: float
    flops: float
    link: float
    waiting: float
    cap: float
    spread: tuple[float, float]
    source: Source
    note: str

    def watts(self, accelerator: Accelerator, share: Mapping[str, float]) -> float:
        """Watts of one GPU that spends `share` of its time in each of STATES; what is missing from 1 draws idle."""
        way = sum(getattr(self, state) * share.get(state, 0.0) for state in STATES)
        asked_w = accelerator.idle_w + (accelerator.tdp_w - accelerator.idle_w) * way
        cap_w = self.cap * accelerator.tdp_w
        drawn_w: float = asked_w * (1 + (asked_w / cap_w) ** CAP_SHARPNESS) ** (-1 / CAP_SHARPNESS)
        return max(accelerator.idle_w, drawn_w)


def time_by_state(terms: StepTerms) -> dict[str, float]:
    """Seconds of a step in each of STATES."""
    seconds = dict.fromkeys(STATES, 0.0)
    for term, s in terms.seconds.items():
        seconds[STATE_OF.get(terms.binds[term], "waiting")] += s
    return seconds


def step_watts(terms: StepTerms, accelerator: Accelerator) -> float:
    """Mean watts of one GPU over a step, from `idle_w` (a step that takes no time) to at most `tdp_w`."""
    seconds = time_by_state(terms)
    total_s = sum(seconds.values())
    share = {state: s / total_s for state, s in seconds.items()} if total_s > 0 else {}
    return power_of(accelerator).watts(accelerator, share)


def step_joules(terms: StepTerms, accelerator: Accelerator) -> float:
    """Joules of one GPU over a step, what it would have drawn idle included; times the GPUs for a replica's."""
    return step_watts(terms, accelerator) * terms.total_s


def mean_watts(steps: Iterable[tuple[float, StepTerms]], accelerator: Accelerator) -> float:
    """Mean watts of one GPU over steps that occur so often: (count, terms), joules over seconds; idle for none."""
    joules = seconds = 0.0
    for count, terms in steps:
        joules += count * step_joules(terms, accelerator)
        seconds += count * terms.total_s
    return joules / seconds if seconds > 0 else accelerator.idle_w


def power_of(accelerator: Accelerator) -> PowerShares:
    """The shares of `accelerator`: its own row, its family's, or the mean of the measured ones."""
    tables = _tables()
    rows = tables["accelerators"]
    row = rows.get(accelerator.name)
    if row is not None:
        return _shares(row, source=Source[row["source"].upper()], note=row.get("note", ""))
    relative = tables["families"].get(accelerator.family)
    if relative is not None:
        note = f"power shares of {relative}: none of {accelerator.name} are measured"
        return _shares(rows[relative], source=Source.DERIVED, note=note)
    note = f"power shares are the mean of measured accelerators: none of {accelerator.name} or its family are"
    return _shares(tables["mean"], source=Source.GUESS, note=note)


def _shares(row: Mapping[str, Any], *, source: Source, note: str) -> PowerShares:
    low, high = row["spread"]
    shares = {state: float(row[state]) for state in STATES}
    return PowerShares(**shares, cap=float(row["cap"]), spread=(low, high), source=source, note=note)


@cache
def _tables() -> dict[str, Any]:
    text = resources.files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8")
    return tomllib.loads(text)

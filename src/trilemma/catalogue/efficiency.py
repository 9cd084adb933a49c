"""How much of the data sheet kernels and engines reach: shares fitted on measured kernels and measured runs.

Rows live in data/efficiency.toml, written by benchmarks/fit_kernels.py and benchmarks/fit_engines.py. Accelerators
without kernel measurements use a relative's shares, marked `derived`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.figure import Source, weakest

FILE = "efficiency.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Time of one kernel call: ((bytes / (bandwidth x memory))^blend + (flops / (peak x compute))^blend)^(1/blend)
    + fixed_s, with `memory` and `compute` shares of the data sheet's peaks."""

    memory: float
    compute: float
    blend: float
    fixed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEfficiency:
    """One accelerator's kernels: GEMMs and expert GEMMs by compute format, attention, collectives inside a domain.

    `collective` uses `memory` as the share of link bandwidth an all-reduce reaches and `fixed_s` as its latency.
    """

    gemm: Mapping[str, Roofline]
    expert: Mapping[str, Roofline]
    decode_attention: Roofline
    prefill_attention: Roofline
    collective: Roofline
    source: Source
    relative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEfficiency:
    """What an engine adds to its kernels, fitted on measured runs.

    `step_s` per step, `layer_s` per layer and step, `sequence_s` per sampled sequence, `request_s` per request before
    it reaches the scheduler. The scales multiply kernel terms: `gemm`, `expert` (`expert_4bit` where
    4-bit weights meet wider activations), `attention`, `collective`;
    `prefill` further multiplies the terms that only prefill steps have. `elementwise_passes` counts how often a
    token's hidden vector crosses HBM per layer outside GEMMs and attention. `mtp_tokens` is the mean number of tokens
    a sequence gains per step with multi-token prediction. The spreads are the 10% and 90% quantiles of measured /
    predicted on models left out of the fit, for mean TPOT, mean TTFT and output tokens/s.
    """

    step_s: float
    layer_s: float
    sequence_s: float
    request_s: float
    gemm: float
    expert: float
    expert_4bit: float
    attention: float
    collective: float
    prefill: float
    elementwise_passes: float
    mtp_tokens: float
    tpot_spread: tuple[float, float]
    ttft_spread: tuple[float, float]
    throughput_spread: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """The constants one deployment's latency model needs; `source` is the weakest of its parts."""

    kernels: KernelEfficiency
    engine: EngineEfficiency
    network_share: float
    network_collective_s: float
    source: Source
    note: str


@cache
def _tables() -> dict[str, Any]:
    text = resources.files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _roofline(row: Mapping[str, float], slower: float) -> Roofline:
    return Roofline(
        memory=row["memory"] / slower,
        compute=row.get("compute", 1.0) / slower,
        blend=row["blend"],
        fixed_s=row["fixed_s"] * slower,
    )


def _kernels(row: Mapping[str, Any], *, slower: float, source: Source, relative: str) -> KernelEfficiency:
    def roofline(values: Mapping[str, float]) -> Roofline:
        return _roofline(values, slower)

    return KernelEfficiency(
        gemm={name: roofline(values) for name, values in row["gemm"].items()},
        expert={name: roofline(values) for name, values in row["expert"].items()},
        decode_attention=roofline(row["decode_attention"]),
        prefill_attention=roofline(row["prefill_attention"]),
        collective=roofline(row["collective"]),
        source=source,
        relative=relative,
    )


def efficiency_for(accelerator: Accelerator, engine_name: str) -> Efficiency:
    """Shares and overheads for `accelerator` under `engine_name`.

    An accelerator without a row of its own takes its family's relative, else the table's default relative; the note
    says so and the source is at best DERIVED (same family) or GUESS (another one). The same for engines.
    """
    tables = _tables()
    notes = []
    rows = tables["accelerators"]
    relatives = tables["relatives"]
    if accelerator.name in rows:
        name, slower, source = accelerator.name, 1.0, Source.FITTED
    else:
        source = Source.DERIVED if accelerator.family in relatives else Source.GUESS
        relative = relatives.get(accelerator.family, relatives["default"])
        name, slower = relative["row"], relative.get("slower", 1.0)
        pace = f", {slower:g} times as slow" if slower != 1 else ""
        notes.append(f"kernels of {name}{pace}: none of {accelerator.name} are measured")
    engines = tables["engines"]
    engine_row = engines.get(engine_name)
    engine_source = Source.FITTED
    if engine_row is None:
        engine_row, engine_source = engines["vllm"], Source.GUESS
        notes.append(f"overheads of vllm (no measured runs of {engine_name})")
    engine = EngineEfficiency(
        **{key: value for key, value in engine_row.items() if not key.endswith("_spread")},
        tpot_spread=tuple(engine_row["tpot_spread"]),
        ttft_spread=tuple(engine_row["ttft_spread"]),
        throughput_spread=tuple(engine_row["throughput_spread"]),
    )
    return Efficiency(
        kernels=_kernels(rows[name], slower=slower, source=source, relative=name),
        engine=engine,
        network_share=tables["network"]["share"],
        network_collective_s=tables["network"]["collective_s"],
        source=weakest(source, engine_source),
        note="; ".join(notes),
    )

"""The bill as a value: the matrix of dimensions and uses, its two views, and the unit costs that follow."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from trilemma.catalogue.figure import Source
from trilemma.cost.lines import Dimension, Line
from trilemma.cost.use import ByUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """What the deployment served, per hour of the period; tokens of requests inside their limits.

    `cached_prompt_tokens_per_h` is the part of the prompt tokens that was found in the prefix cache.
    """

    requests_per_h: float
    requests_in_limits_per_h: float
    prompt_tokens_per_h: float
    output_tokens_per_h: float
    cached_prompt_tokens_per_h: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ByToken:
    """$ per million tokens by the GPU time each kind used: new and cached prompt tokens, output tokens; None where
    there are none of a kind. Times the volumes they return the total."""

    input: float | None
    cached: float | None
    output: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimable:
    """$/h that unused capacity of one cause could give back under this offer: either way, not both.

    `scale_down` is the money saved by holding only what is asked for; `backfill` what the hours cost that batch work
    or a second tenant could use instead (energy apart: such work burns its own).
    """

    cause: str
    scale_down_usd_per_h: float
    backfill_usd_per_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A deployment under one offer, levelised per hour. Every total is a sum of the lines' cells.

    `paid_gpus`, `held_gpus` and `it_watts` are averages over the period, `purchase_units` the peak's; `gpus` are the
    paid GPUs by use. GPUs paid beside those (while they start, replace interrupted ones or end a charged increment)
    have lines of their own. `it_watts` is at the nodes, before PUE, None for an API; rented, nobody bills them.
    `prefill_share` is the part of busy GPU time that prefilled, None where unmeasured, `cached_prefill_share` the part
    of that which attended to cached prompt tokens. `headroom_is_split` says whether the knee was measured. `source`
    is the weakest among the figures used. `obligations` are the notes of what is bought or committed to and of what
    interruptions take. `backfill_credit_usd_per_h` is what batch work in idle GPU time would be worth, outside the sum:
    None where saturation is unmeasured. `total_usd_per_h` is the sum of the matrix.
    """

    offer: str
    kind: str
    lines: tuple[Line, ...]
    volumes: Volumes
    paid_gpus: float
    held_gpus: float
    gpus: ByUse
    purchase_units: int
    purchase_unit_gpus: int
    it_watts: float | None
    pue: float | None
    prefill_share: float | None
    headroom_is_split: bool
    reclaimable: tuple[Reclaimable, ...]
    notes: tuple[str, ...]
    source: Source
    obligations: tuple[str, ...] = ()
    cached_prefill_share: float = 0.0
    grid_gco2_per_kwh: float | None = None
    backfill_credit_usd_per_h: float | None = 0.0
    total_usd_per_h: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total_usd_per_h", math.fsum(self._cells()))

    def _cells(self) -> Iterator[float]:
        """The cells of the matrix: added up as it does, since a plan asks thousands of bills for their sum alone."""
        for dimension in Dimension:
            useful = waste = latency = reserve = idle = stranded = 0.0
            for line in self.lines:
                if line.dimension is dimension:
                    split = line.split
                    useful += split.useful
                    waste += split.waste
                    latency += split.latency
                    reserve += split.reserve
                    idle += split.idle
                    stranded += split.stranded
            yield from (useful, waste, latency + reserve, idle, stranded)

    def row(self, dimension: Dimension) -> ByUse:
        """One row of the matrix, $/h."""
        return sum((line.split for line in self.lines if line.dimension == dimension), ByUse())

    @property
    def matrix(self) -> dict[str, dict[str, float]]:
        """$/h by dimension and use: three rows of five."""
        return {dimension.value: self.row(dimension).five for dimension in Dimension}

    @property
    def capital_usd_per_h(self) -> float:
        """Owned hardware as an annuity; 0 where it is rented."""
        return self.row(Dimension.CAPITAL).total

    @property
    def operational_usd_per_h(self) -> float:
        """Energy, colocation, maintenance, insurance, staff; or rent; or an API's tokens."""
        return self.row(Dimension.OPERATIONAL).total

    @property
    def engineering_usd_per_h(self) -> float:
        """Tuning, precision work, upkeep and benchmarking."""
        return self.row(Dimension.ENGINEERING).total

    @property
    def cash_view(self) -> dict[str, float]:
        """Where the money goes, $/h."""
        return {dimension.value: self.row(dimension).total for dimension in Dimension}

    @property
    def use_view(self) -> dict[str, float]:
        """What the money bought, $/h; sums to the same total."""
        return sum((line.split for line in self.lines), ByUse()).five

    @property
    def opportunity_usd_per_h(self) -> float:
        """What capital and operational money bought nothing with; inside the total, never added to it."""
        return self.row(Dimension.CAPITAL).bought_nothing + self.row(Dimension.OPERATIONAL).bought_nothing

    @property
    def headroom_latency_usd_per_h(self) -> float | None:
        """The price of latency: running below saturation so that the limits hold; None without a knee."""
        return sum(line.split.latency for line in self.lines) if self.headroom_is_split else None

    @property
    def headroom_reserve_usd_per_h(self) -> float | None:
        """Margin, redundancy and rounding; None without a knee."""
        return sum(line.split.reserve for line in self.lines) if self.headroom_is_split else None

    @property
    def usd_per_mtok_output(self) -> float | None:
        """Everything on the output tokens inside the limits; None where there are none."""
        return per(self.total_usd_per_h * 1e6, self.volumes.output_tokens_per_h)

    @property
    def usd_per_mtok_by_gpu_time(self) -> ByToken | None:
        """New input, cached input and output by the GPU time each used; None if unmeasured or without such tokens."""
        volumes, share = self.volumes, self.prefill_share
        if share is None or volumes.prompt_tokens_per_h <= 0 or volumes.output_tokens_per_h <= 0:
            return None
        cached = volumes.cached_prompt_tokens_per_h
        new = volumes.prompt_tokens_per_h - cached
        # What is found in the cache costs the time to attend to it; where nothing else was prompted, all of prefill.
        on_cached = 0.0 if cached <= 0 else 1.0 if new <= 0 else self.cached_prefill_share
        prefill_usd = self.total_usd_per_h * share
        return ByToken(
            input=per(prefill_usd * (1 - on_cached) * 1e6, new),
            cached=per(prefill_usd * on_cached * 1e6, cached),
            output=per(self.total_usd_per_h * (1 - share) * 1e6, volumes.output_tokens_per_h),
        )

    @property
    def usd_per_request(self) -> float | None:
        """Per request served."""
        return per(self.total_usd_per_h, self.volumes.requests_per_h)

    @property
    def usd_per_1k_requests(self) -> float | None:
        """Per thousand requests served."""
        return per(self.total_usd_per_h * 1e3, self.volumes.requests_per_h)

    @property
    def usd_per_1k_requests_in_limits(self) -> float | None:
        """Per thousand requests that met their limits."""
        return per(self.total_usd_per_h * 1e3, self.volumes.requests_in_limits_per_h)

    @property
    def facility_watts(self) -> float | None:
        """Average power at the meter, PUE included."""
        return None if self.it_watts is None or self.pue is None else self.it_watts * self.pue

    @property
    def energy_wh_per_mtok_output(self) -> float | None:
        """At the meter, on the output tokens inside the limits."""
        watts = self.facility_watts
        return None if watts is None else per(watts * 1e6, self.volumes.output_tokens_per_h)

    @property
    def gco2_per_mtok_output(self) -> float | None:
        """Grams of CO2 of that energy, at the grid's carbon intensity."""
        energy_wh, grid = self.energy_wh_per_mtok_output, self.grid_gco2_per_kwh
        return None if energy_wh is None or grid is None else energy_wh / 1000 * grid


def per(amount: float, volume: float) -> float | None:
    """Amount over volume; None where there is no volume to carry it.

    >>> per(3.0, 2.0), per(3.0, 0.0)
    (1.5, None)
    """
    return amount / volume if volume > 0 else None

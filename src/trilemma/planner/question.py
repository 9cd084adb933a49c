"""What is asked: a model, a workload, limits, prices and how far the search may go."""

from dataclasses import dataclass

import numpy as np

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.model import Model
from trilemma.catalogue.offer import Offer
from trilemma.catalogue.precision import Precision
from trilemma.metrics.limits import Limit, Metric
from trilemma.workload.profile import DailyProfile
from trilemma.workload.requests import FloatArray, Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The requests to serve and what they stand for.

    `label` names trace or distribution. `batch` means the requests are a job that is all there at the start and
    repeats every `period_s` seconds; otherwise they arrive, and `profile` (None: the trace repeats) shapes the day.
    `clients` > 0 closes the loop.
    """

    label: str
    requests: Requests
    profile: DailyProfile | None = None
    batch: bool = False
    period_s: float | None = None
    clients: int = 0
    notes: tuple[str, ...] = ()

    @property
    def hourly_rps(self) -> FloatArray:
        """(hours,) load of each hour of the profile; without one the trace's own rate, hour after hour."""
        rate = self.requests.rate_per_s
        return np.array([rate]) if self.profile is None else self.profile.load_rps(rate)

    @property
    def sizing_rps(self) -> float:
        """The load the fleet is sized for: that of the busiest hour."""
        return float(self.hourly_rps.max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may be combined. `offers` are every way to obtain the `accelerators`.

    `only_native` leaves out precisions that an accelerator only stores but does not multiply in, the model's own
    excepted. `kv_bytes_per_element` holds 2 (BF16 cache) and/or 1 (FP8); empty: what checkpoints of the precision ask
    for. Empty knobs mean the engine's defaults for the accelerator, and smaller token budgets beside them.
    `max_accuracy_loss_pct` bounds what a precision may cost in published scores (catalogue.quality); None: no bound.
    """

    accelerators: tuple[Accelerator, ...]
    offers: tuple[Offer, ...]
    precisions: tuple[Precision, ...]
    engines: tuple[Engine, ...]
    tensor_parallel: tuple[int, ...] = (1, 2, 4, 8)
    only_native: bool = False
    kv_bytes_per_element: tuple[float, ...] = ()
    max_num_batched_tokens: tuple[int, ...] = ()
    max_num_seqs: tuple[int, ...] = ()
    max_gpus: int | None = None
    max_accuracy_loss_pct: float | None = None

    def offers_for(self, accelerator: Accelerator) -> tuple[Offer, ...]:
        """The space's offers of one accelerator."""
        return tuple(offer for offer in self.offers if offer.accelerator == accelerator.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Policy: capacity for load x (1 + `headroom`), plus `spare_replicas` that may fail."""

    headroom: float = 0.25
    spare_replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything a plan depends on; the same question gives the same answer.

    `confidence` is the probability, under the prediction's own intervals, that a latency stays inside its limit.
    """

    name: str
    model: Model
    workload: Workload
    limits: tuple[Limit, ...]
    space: Space
    sizing: Sizing
    economics: Economics
    confidence: float = 0.8
    as_of: str | None = None
    seed: int = 0

    @property
    def deadline_s(self) -> float | None:
        """The deadline of batch work; None where there is none."""
        return min((x.bound for x in self.limits if x.metric is Metric.DEADLINE), default=None)

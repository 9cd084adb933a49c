"""What is asked: a model, a workload, limits, prices and how far the search may go."""

import hashlib
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum

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


class Objective(StrEnum):
    """What the best plan has least or most of, among those that keep the limits and the budget."""

    COST = "cost"
    GOODPUT = "goodput"
    LATENCY = "latency"
    ENERGY = "energy"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClass:
    """A class of requests: its name, and its priority (lower is scheduled first; None: none was given)."""

    name: str
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The requests to serve and what they stand for.

    `label` names trace or distribution. `batch` means the requests are a job that is all there at the start and
    repeats every `period_s` seconds; otherwise they arrive, and `profile` (None: the trace repeats) shapes the day.
    `clients` > 0 closes the loop. `requests.request_class` counts in `classes`.
    """

    label: str
    requests: Requests
    profile: DailyProfile | None = None
    batch: bool = False
    period_s: float | None = None
    clients: int = 0
    classes: tuple[RequestClass, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; empty without any."""
        return tuple(one.name for one in self.classes)

    @property
    def hourly_rps(self) -> FloatArray:
        """(hours,) load of each hour of the profile; without one the trace's own rate, hour after hour."""
        rate = self.requests.rate_per_s
        return np.array([rate]) if self.profile is None else self.profile.load_rps(rate)

    @property
    def mean_tokens(self) -> tuple[float, float]:
        """(prompt, output) tokens of the mean request."""
        return float(self.requests.prompt_tokens.mean()), float(self.requests.output_tokens.mean())

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

    Parallelism: every combination of `tensor_parallel`, `pipeline_parallel`, `data_parallel` (attention ranks of a
    mixture of experts) and `expert_parallel`; empty expert parallelism is none and all GPUs of a stage for a mixture
    of experts, none for others. `prefix_caching` needs a workload that names its prefix blocks, `speculative_mtp` a
    model with layers that predict further tokens. `disaggregated` True: prefill and decode on pools of their own.
    `max_nodes` bounds whole purchase units, `budget_usd_per_month` the bill of all four dimensions.
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
    pipeline_parallel: tuple[int, ...] = (1,)
    data_parallel: tuple[int, ...] = (1,)
    expert_parallel: tuple[int, ...] = ()
    prefix_caching: tuple[bool, ...] = (False,)
    speculative_mtp: tuple[bool, ...] = (False,)
    disaggregated: tuple[bool, ...] = (False,)
    max_gpus: int | None = None
    max_nodes: int | None = None
    budget_usd_per_month: float | None = None
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
    objective: Objective = Objective.COST
    as_of: str | None = None
    seed: int = 0

    @property
    def asked_rps(self) -> float:
        """Requests per second that a fleet has to take without its spare replicas: the busiest hour's load with its
        headroom."""
        return self.workload.sizing_rps * (1 + self.sizing.headroom)

    @property
    def deadline_s(self) -> float | None:
        """The deadline of batch work; None where there is none."""
        return min((x.bound for x in self.limits if x.metric is Metric.DEADLINE), default=None)

    def __reduce__(self) -> tuple[Callable[..., "Question"], tuple[str, bytes]]:
        """Travels to other processes with every piece of work, and is unpacked once in each."""
        found = next((packed for question, packed in _packed if question is self), None)
        if found is None:
            content = pickle.dumps({f.name: getattr(self, f.name) for f in fields(self)})
            found = hashlib.sha256(content).hexdigest(), content
            _packed.append((self, found))
        return _unpacked, found


_packed: deque[tuple[Question, tuple[str, bytes]]] = deque(maxlen=2)
_here: dict[str, Question] = {}


def _unpacked(digest: str, content: bytes) -> Question:
    """The question of a content; the one this process has already, where it has."""
    if digest not in _here:
        while len(_here) >= 2:
            del _here[next(iter(_here))]
        _here[digest] = Question(**pickle.loads(content))  # noqa: S301 - what this program packed
    return _here[digest]

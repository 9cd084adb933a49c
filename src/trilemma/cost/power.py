"""Watts by state and what they were for: chassis always on, GPUs busy with prefill or decode, idle, without a model.

A GPU that a replica holds draws prefill, decode or idle watts. One without a model (stranded, or given back by a
scaled-down fleet that still owns it) has no GPU context and no clocks held up, and draws less than an idle one.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.figure import Figure, Source
from trilemma.cost.sharing import made_once
from trilemma.cost.use import ByUse, GpuUse

FloatArray = npt.NDArray[np.float64]

UNLOADED_IDLE_SHARE = Figure(
    value=35 / 110,
    low=35 / 110,
    high=1.0,
    source=Source.MEASURED,
    as_of="2026-04",
    reference="arXiv 2604.04745, 756 GPUs: 35 W in deep idle, 110 W idle with a model loaded",
)


@dataclass(frozen=True, kw_only=True)  # no slots: what only some offers ask for is reckoned when asked, and kept
class Power:
    """Watts at the nodes over k intervals, each array (k,), before PUE.

    `working_w` is what a GPU at work draws on average, `loaded_w` one that has a model and nothing to do, `unloaded_w`
    one without a model.
    """

    use: GpuUse
    chassis_w: FloatArray
    busy_w: FloatArray
    idle_w: FloatArray
    released_w: FloatArray
    stranded_w: FloatArray
    working_w: float
    loaded_w: float
    unloaded_w: float

    @property
    def total_w(self) -> FloatArray:
        """(k,) all states."""
        return self.chassis_w + self.busy_w + self.idle_w + self.released_w + self.stranded_w

    @cached_property
    def mean_w(self) -> float:
        """Time average of all states."""
        return self.use.over_period(self.total_w)

    @property
    def extra_w_of_work_in_idle(self) -> float:
        """Watts on top of the average if all idle GPUs (held or given back, asked for by nobody) worked."""
        use = self.use
        loaded = use.over_period(np.maximum(use.held - use.asked, 0.0))
        unloaded = use.over_period(np.maximum(use.kept - use.held, 0.0))
        return loaded * (self.working_w - self.loaded_w) + unloaded * (self.working_w - self.unloaded_w)

    @cached_property
    def by_use(self) -> ByUse:
        """Average watts by use.

        Busy watts went into token work, useful or wasted. Idle watts of held GPUs go to headroom and idle by their
        GPUs (to the token work where neither exists), unloaded ones to idle (given back) and stranded, the chassis to
        all of them by GPUs.
        """
        columns = self.use.columns
        watts = self.chassis_w[:, None] * _shares(columns, fallback=columns)
        work = np.zeros_like(columns)
        work[:, 0], work[:, 1] = self.use.useful_share, 1 - self.use.useful_share
        slack = columns.copy()
        slack[:, [0, 1, 5]] = 0.0
        slack[:, 4] = np.maximum(self.use.held - self.use.asked, 0.0)
        watts += self.busy_w[:, None] * work + self.idle_w[:, None] * _shares(slack, fallback=work)
        watts[:, 4] += self.released_w
        watts[:, 5] += self.stranded_w
        return ByUse.of(self.use.weight @ watts)


@made_once
def node_power(
    accelerator: Accelerator,
    use: GpuUse,
    *,
    unloaded_idle_share: float = UNLOADED_IDLE_SHARE.value,
    prefill_w: float | None = None,
    decode_w: float | None = None,
) -> Power:
    """Watts of every paid GPU by its state, and of the chassis' share that goes with it.

    A card bought singly carries its share of the chassis: chassis_w x paid / GPUs per node. `prefill_w` and `decode_w`
    are what a GPU busy with each draws, where the run says so; otherwise the accelerator's usual watts.
    """
    prefill_w = accelerator.prefill_w if prefill_w is None else prefill_w
    decode_w = accelerator.decode_w if decode_w is None else decode_w
    unloaded_w = accelerator.idle_w * unloaded_idle_share
    idle_gpus = np.maximum(use.held - use.prefill - use.decode, 0.0)
    busy_w = use.prefill * prefill_w + use.decode * decode_w
    busy = use.over_period(use.prefill + use.decode)
    return Power(
        use=use,
        chassis_w=accelerator.chassis_w * use.paid / accelerator.gpus_per_node,
        busy_w=busy_w,
        idle_w=idle_gpus * accelerator.idle_w,
        released_w=np.maximum(use.kept - use.held, 0.0) * unloaded_w,
        stranded_w=np.maximum(use.paid - use.kept, 0.0) * unloaded_w,
        working_w=use.over_period(busy_w) / busy if busy else decode_w,
        loaded_w=accelerator.idle_w,
        unloaded_w=unloaded_w,
    )


def _shares(columns: FloatArray, *, fallback: FloatArray) -> FloatArray:
    """(k, 6) rows scaled to sum 1; a row of zeros takes the fallback's shares (zeros again where that is empty)."""
    chosen = np.where(columns.sum(axis=1, keepdims=True) > 0, columns, fallback)
    total = chosen.sum(axis=1, keepdims=True)
    shares: FloatArray = np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)
    return shares

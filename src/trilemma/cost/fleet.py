"""The fleet an offer charges for: GPUs bought or rented in whole units, and what they did over the period."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.cost.packing import box_gpus, paid_gpus, whole_where_meant
from trilemma.cost.power import Power, node_power
from trilemma.cost.sharing import made_once
from trilemma.cost.use import ByUse, GpuUse, gpu_use
from trilemma.deployment.spec import Deployment
from trilemma.metrics.activity import Activity, Capacity, Schedule
from trilemma.units import SECONDS_PER_H

FloatArray = npt.NDArray[np.float64]

# Charged for the peak all day, or for what runs; the one list that says where scaling down saves money.
CHARGES_ALL_DAY = frozenset({OfferKind.OWNED, OfferKind.RESERVED})


@dataclass(frozen=True, kw_only=True)  # no slots: what only some offers ask for is reckoned when asked, and kept
class Fleet:
    """What an offer charges for: GPUs by use (k intervals) and watts by state over the period; `units` at the peak.

    `gpus` are the paid GPUs by use, averaged over the period, and `paid_gpus` their sum as reckoned from whole units.
    """

    accelerator: Accelerator
    offer: Offer
    economics: Economics
    activity: Activity
    schedule: Schedule
    gpus_per_replica: int
    use: GpuUse
    gpus: ByUse
    paid_gpus: float
    units: int
    unloaded_idle_share: float

    @cached_property
    def power(self) -> Power:
        """Watts by state, over the period."""
        return node_power(
            self.accelerator,
            self.use,
            unloaded_idle_share=self.unloaded_idle_share,
            prefill_w=self.activity.prefill_w,
            decode_w=self.activity.decode_w,
        )

    @property
    def nodes(self) -> float:
        """Nodes at the peak; a card bought singly is its share of one."""
        return self.units * self.offer.purchase_unit_gpus / self.accelerator.gpus_per_node

    @property
    def start_s(self) -> float:
        """Seconds until a rented instance answers."""
        start_s = self.offer.start_s
        return self.economics.instance_start_s if start_s is None else start_s.value

    @cached_property
    def added_gpus(self) -> FloatArray:
        """(k,) paid GPUs that were not there in the interval before; the first follows the last."""
        paid = self.use.paid
        return np.maximum(paid - np.concatenate((paid[-1:], paid[:-1])), 0.0)

    @property
    def stopped_gpus(self) -> int:
        """GPUs that stop when one instance is taken away: its own, or those of the replica that spans it."""
        unit = self.offer.purchase_unit_gpus
        return math.ceil(self.gpus_per_replica / unit) * unit

    @property
    def spare_gpus(self) -> float | None:
        """GPUs paid, on average, while they replace interrupted instances and repeat lost work; None where the rate of
        interruptions is unavailable."""
        rate = self.offer.interruptions_per_h
        if rate is None:
            return None
        stops_per_h = self.paid_gpus / self.offer.purchase_unit_gpus * rate.value
        return stops_per_h * self.stopped_gpus * (self.start_s + self.economics.spot_lost_work_s) / SECONDS_PER_H


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One deployment under one offer, before anyone says how many replicas run.

    `bought_replicas` is what owned or reserved units are paid for all day.
    """

    deployment: Deployment
    offer: Offer
    economics: Economics
    activity: Activity
    capacity: Capacity
    schedule: Schedule
    bought_replicas: int
    unloaded_idle_share: float

    def holding(self, held_replicas: FloatArray) -> Fleet:
        """The fleet when `held_replicas` (k,) run: paid units, GPUs by use, watts by state."""
        size, accelerator = self.deployment.parallelism.gpus, self.deployment.accelerator
        unit = self.offer.purchase_unit_gpus
        use = _use_of(
            self.schedule,
            held_replicas,
            self.activity,
            self.capacity,
            bought_replicas=self.bought_replicas if self.offer.kind in CHARGES_ALL_DAY else None,
            gpus_per_replica=size,
            unit_gpus=unit,
            box=box_gpus(accelerator),
        )
        return Fleet(
            accelerator=accelerator,
            offer=self.offer,
            economics=self.economics,
            activity=self.activity,
            schedule=self.schedule,
            gpus_per_replica=size,
            use=use,
            gpus=use.mean,
            paid_gpus=use.paid_gpus,
            units=math.ceil(float(use.paid.max()) / unit - 1e-9),
            unloaded_idle_share=self.unloaded_idle_share,
        )


@made_once
def held_of(schedule: Schedule) -> FloatArray:
    """(k,) the replicas that a schedule holds, free of rounding noise."""
    return whole_where_meant(schedule.held_replicas)


@made_once  # two offers that charge for the same units at other prices have the same use
def _use_of(
    schedule: Schedule,
    held_replicas: FloatArray,
    activity: Activity,
    capacity: Capacity,
    *,
    bought_replicas: int | None,
    gpus_per_replica: int,
    unit_gpus: int,
    box: int,
) -> GpuUse:
    """GPUs by use while `held_replicas` (k,) run; units are paid for `bought_replicas` all day (None: for those)."""
    held_replicas = whole_where_meant(held_replicas)
    kept = held_replicas if bought_replicas is None else np.full_like(held_replicas, bought_replicas)
    return gpu_use(
        schedule,
        held_replicas=held_replicas,
        paid=paid_gpus(kept, gpus_per_replica=gpus_per_replica, unit_gpus=unit_gpus, box=box),
        kept=kept * gpus_per_replica,
        gpus_per_replica=gpus_per_replica,
        activity=activity,
        capacity=capacity,
    )

"""The fleet an offer charges for: GPUs bought or rented in whole units, and what they did over the period."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.cost.packing import box_gpus, paid_gpus, whole_where_meant
from trilemma.cost.power import Power, node_power
from trilemma.cost.use import GpuUse, gpu_use
from trilemma.deployment.spec import Deployment
from trilemma.metrics.activity import Activity, Capacity, Schedule

FloatArray = npt.NDArray[np.float64]

# Charged for the peak all day, or for what runs; the one list that says where scaling down saves money.
CHARGES_ALL_DAY = frozenset({OfferKind.OWNED, OfferKind.RESERVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What an offer charges for: GPUs by use and watts by state over the period; `units` at the peak."""

    accelerator: Accelerator
    offer: Offer
    economics: Economics
    use: GpuUse
    power: Power
    units: int

    @property
    def nodes(self) -> float:
        """Nodes at the peak; a card bought singly is its share of one."""
        return self.units * self.offer.purchase_unit_gpus / self.accelerator.gpus_per_node

    @property
    def paid_gpus(self) -> float:
        """GPUs paid for, averaged over the period."""
        return self.use.over_period(self.use.paid)


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
        held_replicas = whole_where_meant(held_replicas)
        size, accelerator = self.deployment.parallelism.gpus, self.deployment.accelerator
        all_day = self.offer.kind in CHARGES_ALL_DAY
        kept = np.full_like(held_replicas, self.bought_replicas) if all_day else held_replicas
        unit = self.offer.purchase_unit_gpus
        paid = paid_gpus(kept, gpus_per_replica=size, unit_gpus=unit, box=box_gpus(accelerator))
        use = gpu_use(
            self.schedule,
            held_replicas=held_replicas,
            paid=paid,
            kept=kept * size,
            gpus_per_replica=size,
            activity=self.activity,
            capacity=self.capacity,
        )
        return Fleet(
            accelerator=accelerator,
            offer=self.offer,
            economics=self.economics,
            use=use,
            power=node_power(accelerator, use, unloaded_idle_share=self.unloaded_idle_share),
            units=math.ceil(float(paid.max()) / unit - 1e-9),
        )

"""What a candidate costs at least: the bill of a fleet no real one undercuts, kept by what it depends on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, inf, log

from trilemma.catalogue.offer import Offer
from trilemma.cost.engineering import engineering_lines, topology_of
from trilemma.cost.fleet import CHARGES_ALL_DAY, Case, held_of
from trilemma.cost.offers import CHARGES
from trilemma.cost.power import UNLOADED_IDLE_SHARE
from trilemma.cost.sizing import replicas_each
from trilemma.planner.answer import Fleet
from trilemma.planner.candidate import Candidate
from trilemma.planner.evaluate import smallest_fleet
from trilemma.planner.question import Question
from trilemma.planner.trial import MOST_REPLICAS
from trilemma.workload.requests import FloatArray

COARSE = 4  # steps of FINEST: how finely the least capacity worth having is known
FINEST = 0.01  # capacities are rounded up by as much, so that many candidates share a fleet
FINEST_LOG = log(1 + FINEST)


@dataclass
class Floors:
    """Prices the smallest fleets of one question; keeps what offers charge for them and what engineers do."""

    question: Question
    _known: dict[tuple[object, ...], float] = field(default_factory=dict)
    _hardware: dict[tuple[object, ...], list[float]] = field(default_factory=dict)
    _held: dict[tuple[object, ...], float] = field(default_factory=dict)
    _least: dict[tuple[object, ...], float] = field(default_factory=dict)
    _people: dict[tuple[object, ...], list[float]] = field(default_factory=dict)

    @cached_property
    def _hourly_rps(self) -> FloatArray:
        """(hours,) the workload's load."""
        return self.question.workload.hourly_rps

    def usd_per_h(self, candidate: Candidate, capacity_rps: float) -> float:
        """Less than the candidate can cost at its cheapest offer, for at most `capacity_rps` of a replica.

        0.0, no bound, where nothing is served or offered (the reason is still to be found), where the capacity is
        unbounded, and for a closed loop.
        """
        d = candidate.deployment
        if not 0 < capacity_rps < inf or self.question.workload.clients:
            return 0.0
        rung = ceil(log(capacity_rps) / FINEST_LOG)
        key = (rung, d.accelerator.name, d.parallelism, d.engine.name, d.precision.name)
        if key not in self._known:
            self._known[key] = self._usd_per_h(candidate, rung)
        return self._known[key]

    def _usd_per_h(self, candidate: Candidate, rung: int) -> float:
        question, d = self.question, candidate.deployment
        offers = question.space.offers_for(d.accelerator)
        if not offers:
            return 0.0
        key = (rung, d.accelerator.name, d.parallelism.gpus)
        if key not in self._hardware:
            self._hardware[key] = self._charges(candidate, (1 + FINEST) ** rung, offers)
        charged, people = self._hardware[key], self._engineering(candidate, offers)
        return min(hardware + staff for hardware, staff in zip(charged, people, strict=True))

    def least_rps(self, candidate: Candidate, most_rps: float, most_usd_per_h: float) -> float:
        """Below what capacity of a replica, at most `most_rps`, a candidate costs more than `most_usd_per_h` for
        certain; 0.0 where that is not known."""
        d = candidate.deployment
        unknown = most_rps <= 0 or inf in (most_usd_per_h, self.question.asked_rps)
        if unknown or not self.usd_per_h(candidate, most_rps):
            return 0.0
        key = (d.accelerator.name, d.parallelism.gpus, d.engine.name, d.precision.name, most_usd_per_h)
        if key not in self._least:
            high = ceil(log(self.question.asked_rps) / FINEST_LOG)
            low = high - ceil(log(MOST_REPLICAS) / FINEST_LOG)
            while high - low > COARSE:
                middle = (low + high) // 2
                dear = self.usd_per_h(candidate, (1 + FINEST) ** middle) > most_usd_per_h
                low, high = (middle, high) if dear else (low, middle)
            self._least[key] = (1 + FINEST) ** low
        return min(self._least[key], most_rps)

    def _case(self, fleet: Fleet, offer: Offer) -> Case:
        all_day = offer.kind in CHARGES_ALL_DAY
        return Case(
            deployment=fleet.deployment,
            offer=offer,
            economics=self.question.economics,
            activity=fleet.activity,
            capacity=fleet.capacity,
            schedule=fleet.schedule if all_day else fleet.scaled_schedule,
            bought_replicas=fleet.deployment.replicas,
            unloaded_idle_share=UNLOADED_IDLE_SHARE.value,
        )

    def _charges(self, candidate: Candidate, capacity_rps: float, offers: Sequence[Offer]) -> list[float]:
        """What each offer charges for the smallest fleet: as much as for any other that runs as many replicas by the
        hour (at the peak, where it charges all day), since none of these burns more than idle watts."""
        d, sizing = candidate.deployment, self.question.sizing
        fleet = None
        if self.question.workload.batch:
            fleet = smallest_fleet(candidate, capacity_rps, self.question)
            runs = fleet.scaled_schedule
            peak: object = (fleet.deployment.replicas, runs.held_replicas.tobytes(), runs.seconds.tobytes())
            hourly = peak
        else:  # the replicas say all of a stream's fleet, which need not be made to compare them
            asked = replicas_each(self._hourly_rps, capacity_rps, headroom=sizing.headroom, spare=sizing.spare_replicas)
            peak, hourly = float(asked.max()), asked.tobytes()
        charges = []
        for offer in offers:
            replicas = peak if offer.kind in CHARGES_ALL_DAY else hourly
            key = (d.accelerator.name, offer.name, d.parallelism.gpus, replicas)
            if key not in self._held:
                fleet = fleet or smallest_fleet(candidate, capacity_rps, self.question)
                self._held[key] = self._charged(fleet, offer)
            charges.append(self._held[key])
        return charges

    def _charged(self, fleet: Fleet, offer: Offer) -> float:
        """What the offer charges for the fleet, people apart."""
        case = self._case(fleet, offer)
        lines = CHARGES[offer.kind](case.holding(held_of(case.schedule)))
        return sum(line.usd_per_h for line in lines)

    def _engineering(self, candidate: Candidate, offers: Sequence[Offer]) -> list[float]:
        """What people cost under each offer who tune and keep it: no matter how many replicas run."""
        d = candidate.deployment
        topology = topology_of(d)
        key = (d.accelerator.name, d.engine.name, topology, d.precision.name)
        if key not in self._people:
            fleet, effort = smallest_fleet(candidate, 1.0, self.question), d.engine.effort[topology]
            cases = [self._case(fleet, offer) for offer in offers]
            held = [case.holding(held_of(case.schedule)) for case in cases]
            lines = [engineering_lines(each, d, effort, is_useful=True) for each in held]
            self._people[key] = [sum(line.usd_per_h for line in own) for own in lines]
        return self._people[key]

"""What a candidate costs at least: the bill of a fleet no real one undercuts, kept by what it depends on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, inf, log

from trilemma.catalogue.offer import Offer
from trilemma.cost.engineering import engineering_lines, topology_of
from trilemma.cost.fleet import CHARGES_ALL_DAY, Case
from trilemma.cost.offers import CHARGES
from trilemma.cost.power import UNLOADED_IDLE_SHARE
from trilemma.planner.answer import Fleet
from trilemma.planner.candidate import Candidate
from trilemma.planner.evaluate import smallest_fleet
from trilemma.planner.question import Question
from trilemma.planner.trial import MOST_REPLICAS

COARSE = 4  # steps of FINEST: how finely the least capacity worth having is known
FINEST = 0.01  # capacities are rounded up by as much, so that many candidates share a fleet
FINEST_LOG = log(1 + FINEST)


@dataclass
class Floors:
    """Prices the smallest fleets of one question; keeps what offers charge for them and what engineers do."""

    question: Question
    _known: dict[tuple[object, ...], float] = field(default_factory=dict)
    _hardware: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    _held: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    _least: dict[tuple[object, ...], float] = field(default_factory=dict)
    _people: dict[tuple[object, ...], float] = field(default_factory=dict)

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
            fleet = smallest_fleet(candidate, (1 + FINEST) ** rung, question)
            self._hardware[key] = self._charges(fleet, offers)
        charged = self._hardware[key]
        return min(charged[offer.name] + self._engineering(candidate, offer) for offer in offers)

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

    def _charges(self, fleet: Fleet, offers: Sequence[Offer]) -> dict[str, float]:
        """What each offer charges for the fleet: as much as for any other that runs as many replicas by the hour, since
        none of these burns more than idle watts."""
        d, runs = fleet.deployment, fleet.scaled_schedule
        key = (
            d.accelerator.name, d.parallelism.gpus, d.replicas, runs.held_replicas.tobytes(), runs.seconds.tobytes(),
        )  # fmt: skip
        if key not in self._held:
            self._held[key] = {offer.name: self._charged(fleet, offer) for offer in offers}
        return self._held[key]

    def _charged(self, fleet: Fleet, offer: Offer) -> float:
        """What the offer charges for the fleet, people apart."""
        case = self._case(fleet, offer)
        lines = CHARGES[offer.kind](case.holding(case.schedule.held_replicas))
        return sum(line.usd_per_h for line in lines)

    def _engineering(self, candidate: Candidate, offer: Offer) -> float:
        """What people cost who tune and keep it: no matter how many replicas run."""
        deployment = candidate.deployment
        topology = topology_of(deployment)
        key = (offer.name, deployment.engine.name, topology, deployment.precision.name)
        if key not in self._people:
            case = self._case(smallest_fleet(candidate, 1.0, self.question), offer)
            held = case.holding(case.schedule.held_replicas)
            lines = engineering_lines(held, deployment, deployment.engine.effort[topology], is_useful=True)
            self._people[key] = sum(line.usd_per_h for line in lines)
        return self._people[key]

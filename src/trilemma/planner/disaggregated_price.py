"""What two pools cost: a bill of both, under the same offer or one for each; and what they cost at least."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trilemma.catalogue.engine import Topology
from trilemma.catalogue.offer import Offer
from trilemma.cost.bill import Bill, bill
from trilemma.cost.engineering import engineering_lines
from trilemma.cost.fleet import CHARGES_ALL_DAY, Case
from trilemma.cost.fleet import Fleet as Held
from trilemma.cost.offers import CHARGES
from trilemma.cost.pools import pooled
from trilemma.cost.power import UNLOADED_IDLE_SHARE
from trilemma.deployment.spec import Deployment
from trilemma.metrics.activity import Activity, Capacity
from trilemma.planner.answer import Fleet, Plan, Trial
from trilemma.planner.disaggregated_stages import Stage
from trilemma.planner.question import Question
from trilemma.planner.schedules import stream_schedules


def priced_pools(trial: Trial, question: Question) -> list[Plan]:
    """The trial at every offer of its prefill pool's accelerator, the decode pool obtained in the same way (by the
    same offer, or one of the same kind); and with the cheapest of each pool. None where a pool has no offer."""
    prefill, decode = _bills(trial, question)
    if not prefill or not decode:
        return []
    best = (_cheapest(prefill), _cheapest(decode))
    pairs = [(offer, _like(offer, decode)) for offer in question.space.offers_for(trial.deployment.accelerator)]
    chosen = {(one.name, other.name): (one, other) for one, other in [*pairs, best]}
    return [_plan(trial, one, other, pooled(prefill[one], decode[other])) for one, other in chosen.values()]


def price_pools(trial: Trial, offer: Offer, question: Question) -> Plan:
    """The trial with its prefill pool at one offer, and its decode pool obtained in the same way."""
    assert trial.fleet.decode is not None
    _, decode = _bills(trial, question)
    other = _like(offer, decode)
    return _plan(trial, offer, other, pooled(_bill(trial.fleet, offer, question), decode[other]))


def _plan(trial: Trial, offer: Offer, other: Offer, both: Bill) -> Plan:
    return Plan(trial=trial, offer=offer, bill=both, decode_offer=None if other.name == offer.name else other)


def _bills(trial: Trial, question: Question) -> tuple[dict[Offer, Bill], dict[Offer, Bill]]:
    """The bills of each pool by its offers."""
    assert trial.fleet.decode is not None
    prefill, decode = (
        {offer: _bill(fleet, offer, question) for offer in question.space.offers_for(fleet.deployment.accelerator)}
        for fleet in (trial.fleet, trial.fleet.decode)
    )
    return prefill, decode


def _bill(fleet: Fleet, offer: Offer, question: Question) -> Bill:
    deployment = fleet.deployment.pools[0]
    return bill(
        deployment,
        offer,
        question.economics,
        deployment.engine,
        fleet.activity,
        fleet.capacity,
        fleet.schedule if offer.kind in CHARGES_ALL_DAY else fleet.scaled_schedule,
        as_of=question.as_of,
        topology=Topology.DISAGGREGATED,
    )


def _machines(one: Bill) -> float:
    return one.capital_usd_per_h + one.operational_usd_per_h


def _cheapest(bills: Mapping[Offer, Bill]) -> Offer:
    return min(bills, key=lambda offer: (_machines(bills[offer]), offer.name))


def _like(offer: Offer, bills: Mapping[Offer, Bill]) -> Offer:
    """The same offer, or the cheapest of its kind, or the cheapest."""
    same = {o: b for o, b in bills.items() if o.name == offer.name} or {
        o: b for o, b in bills.items() if o.label == offer.label
    }
    return _cheapest(same or bills)


@dataclass
class PoolFloors:
    """What pools cost at least: the fewest replicas, without busy energy; kept by what it depends on."""

    question: Question
    _machines: dict[tuple[object, ...], float] = field(default_factory=dict)
    _people: dict[tuple[object, ...], float] = field(default_factory=dict)

    def machines(self, stage: Stage) -> float:
        """$/h of the machines of a pool of the fewest replicas at its cheapest offer. A pool of more pays no less, in
        whole units and hour by hour, and no pool works for less than idling."""
        d = stage.deployment
        key = (d.accelerator.name, d.parallelism.gpus, stage.fewest)
        if key not in self._machines:
            charged = [
                sum(line.usd_per_h for line in CHARGES[offer.kind](self._held(d, offer, stage.fewest)))
                for offer in self.question.space.offers_for(d.accelerator)
            ]
            self._machines[key] = min(charged, default=0.0)
        return self._machines[key]

    def people(self, prefill: Deployment) -> float:
        """$/h of those who tune and keep both pools, at least."""
        key = (prefill.engine.name, prefill.precision.name, prefill.accelerator.name)
        if key not in self._people:
            effort = prefill.engine.effort[Topology.DISAGGREGATED]
            costs = [
                sum(
                    line.usd_per_h
                    for line in engineering_lines(self._held(prefill, offer, 1), prefill, effort, is_useful=True)
                )
                for offer in self.question.space.offers_for(prefill.accelerator)
            ]
            self._people[key] = min(costs, default=0.0)
        return self._people[key]

    def pair(self, prefill: Stage, decode: Stage) -> float:
        """$/h of both pools at least."""
        return self.machines(prefill) + self.machines(decode) + self.people(prefill.deployment)

    def _held(self, deployment: Deployment, offer: Offer, replicas: int) -> Held:
        question, requests = self.question, self.question.workload.requests
        capacity_rps = question.asked_rps / replicas
        schedules = stream_schedules(question, capacity_rps)
        schedule = schedules[0 if offer.kind in CHARGES_ALL_DAY else 1]
        tokens = int(requests.prompt_tokens.sum()), int(requests.output_tokens.sum())
        case = Case(
            deployment=deployment,
            offer=offer,
            economics=question.economics,
            activity=Activity(
                span_s=1.0, rate_rps=question.workload.sizing_rps, held_gpu_s=0.0, prefill_gpu_s=0.0, decode_gpu_s=0.0,
                useful_tokens=sum(tokens), late_tokens=0, recomputed_tokens=0, prompt_tokens_in_limits=tokens[0],
                output_tokens_in_limits=tokens[1], requests=len(requests), requests_in_limits=len(requests),
            ),
            capacity=Capacity(saturation_rps=capacity_rps, knee_rps=None),
            schedule=schedule,
            bought_replicas=replicas + question.sizing.spare_replicas,
            unloaded_idle_share=UNLOADED_IDLE_SHARE.value,
        )  # fmt: skip
        return case.holding(schedule.held_replicas)

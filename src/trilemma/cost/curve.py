"""$ per million output tokens against utilisation, from an hour in a hundred at work to every hour.

The fleet is the subject's peak, held all day; utilisation is the load over what its replicas saturate at. Benchmark
sites divide a rate by peak throughput: that is the end of the curve at 100%, without the people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trilemma.catalogue.figure import Figure, Source
from trilemma.cost.lines import Dimension
from trilemma.cost.subject import AnyOffer, Subject, name_of
from trilemma.cost.views import Bill, per
from trilemma.errors import InputError
from trilemma.units import SECONDS_PER_H

PERCENT = tuple(range(1, 101))
FIELD_RANGE_PCT = (5.0, 80.0)  # from clusters nobody tuned to the best that is reported, see below


def _reported(
    value: float, source: Source, as_of: str, reference: str, *, low: float | None = None, high: float | None = None
) -> Figure:
    low, high = value if low is None else low, value if high is None else high
    return Figure(value=value, low=low, high=high, source=source, as_of=as_of, reference=reference)


# Percent of what is paid for, as seen in the field; each by its own measure of "used".
SEEN_IN_THE_FIELD = {
    "clusters nobody tuned": _reported(
        5, Source.VENDOR, "2026-04-21",
        "Cast AI, State of Kubernetes Optimization: SM utilisation of 23,000 clusters, all GPU work",
    ),
    "survey": _reported(
        60, Source.DERIVED, "2024", "ClearML and AIIA survey: most answer 51-70%, 15% below 50, 7% above 85",
        low=51, high=70,
    ),
    "DeepSeek": _reported(
        81.6, Source.VENDOR, "2025-02-28", "DeepSeek, open-infra-index, day 6: 226.75 nodes on average, 278 at the peak"
    ),
    "planners' range": _reported(
        50, Source.GUESS, "2026", "parameter table with citations: what planners assume", low=30, high=80
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """At `utilisation_pct` of saturation; `without_people_usd_per_mtok` leaves engineering out."""

    utilisation_pct: float
    usd_per_mtok_output: float
    without_people_usd_per_mtok: float
    in_field_range: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One offer's points in rising order. `own` is the subject as it is, at its own mean utilisation of the replicas
    held; its fleet may follow the load. None where nothing it serves meets its limits. `reported` says what the marked
    range rests on."""

    offer: str
    points: tuple[Point, ...]
    own: Point | None
    reported: tuple[tuple[str, Figure], ...]

    @property
    def peak_usd_per_mtok(self) -> float:
        """A rate over peak throughput, as benchmark sites print it: 100% at work, nobody paid."""
        return self.points[-1].without_people_usd_per_mtok


def curve(subject: Subject, offer: AnyOffer, *, percents: Sequence[float] = PERCENT) -> Curve:
    """The whole curve under one offer. For an API a price is a price: only the people spread over more tokens.

    Raises InputError for a percentage outside (0, 100], and where no request met its limits or saturation is unknown.
    """
    if not percents or min(percents) <= 0 or max(percents) > 100:
        raise InputError("percents", expected="numbers above 0 and at most 100", found=repr(list(percents)))
    replicas = subject.replicas_at()
    full_rps = replicas * saturation_rps(subject)
    flat = replace(
        subject, seconds=np.array([SECONDS_PER_H]), load_rps=np.array([full_rps]), replicas=replicas, is_job=False
    )
    points = []
    for percent in sorted(percents):
        at = replace(flat, load_rps=flat.load_rps * (percent / 100))
        point = _point(percent, at.bill(offer))
        if point is None:
            raise InputError(
                "activity.output_tokens_in_limits", expected="output tokens inside their limits", found="0"
            )
        points.append(point)
    return Curve(
        offer=name_of(offer), points=tuple(points), own=_own(subject, offer), reported=tuple(SEEN_IN_THE_FIELD.items())
    )


def saturation_rps(subject: Subject) -> float:
    """What one replica takes at most; where it was not measured, what its GPUs take when busy all the time.

    Raises InputError where neither is known.
    """
    if subject.capacity.saturation_rps is not None:
        return subject.capacity.saturation_rps
    activity = subject.activity
    busy_gpu_s = activity.prefill_gpu_s + activity.decode_gpu_s
    if not busy_gpu_s or not activity.requests:
        raise InputError("capacity.saturation_rps", expected="a saturation, or busy GPU time", found="neither")
    return subject.deployment.parallelism.gpus * activity.requests / busy_gpu_s


def _own(subject: Subject, offer: AnyOffer) -> Point | None:
    bill = subject.bill(offer)
    schedule = subject.schedule(scales_down=True)
    held = float(np.average(schedule.held_replicas, weights=schedule.seconds))
    if bill.held_gpus:  # as the offer has it: all day, or as the load asks
        held = bill.held_gpus / subject.deployment.parallelism.gpus
    served_rps = bill.volumes.requests_per_h / SECONDS_PER_H
    return _point(100 * served_rps / (held * saturation_rps(subject)), bill)


def _point(utilisation_pct: float, bill: Bill) -> Point | None:
    everything, people = bill.usd_per_mtok_output, bill.row(Dimension.ENGINEERING).total
    without = per((bill.total_usd_per_h - people) * 1e6, bill.volumes.output_tokens_per_h)
    if everything is None or without is None:
        return None
    low, high = FIELD_RANGE_PCT
    return Point(
        utilisation_pct=utilisation_pct,
        usd_per_mtok_output=everything,
        without_people_usd_per_mtok=without,
        in_field_range=low <= utilisation_pct <= high,
    )

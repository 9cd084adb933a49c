"""Which candidate already sized is most like another: where the search for its knee starts."""

from math import log2

import numpy as np

from trilemma.planner.answer import Rejection, Trial
from trilemma.planner.candidate import Candidate
from trilemma.workload.requests import FloatArray

# By how much differences tell knees apart: doublings of sizes, other names.
SIZES = {"tensor": 1.5, "pipeline": 1.5, "data": 1.5, "expert": 1.0, "budget": 2.0, "seats": 0.3, "kv_bytes": 0.7}
NAMES = {"accelerator": 4.0, "precision": 1.5, "engine": 2.0, "prefix_caching": 2.0, "mtp": 2.0}


class Nearness:
    """Knees as shares of the most that their candidates could serve inside the limits."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, object], int] = {}
        self._rows: list[FloatArray] = []
        self._shares: list[float] = []

    def learn(self, candidate: Candidate, outcome: Trial | Rejection, most_rps: float) -> None:
        """Notes a knee, of a candidate that could serve `most_rps`; nothing where none was found."""
        if isinstance(outcome, Rejection) or most_rps <= 0:
            return
        if outcome.fleet.capacity.knee_rps:
            self._rows.append(self._features(candidate))
            self._shares.append(outcome.fleet.capacity.knee_rps / most_rps)

    def share(self, candidate: Candidate) -> float | None:
        """The knee of the candidate most like this one, the first of several, as a share of the most it could serve;
        None before any is known."""
        if not self._rows:
            return None
        apart = np.abs(np.array(self._rows) - self._features(candidate))
        names = apart[:, len(SIZES) :]
        distance = apart[:, : len(SIZES)] @ np.array(list(SIZES.values()))
        distance += (names != 0) @ np.array(list(NAMES.values()))
        return self._shares[int(distance.argmin())]

    def _features(self, candidate: Candidate) -> FloatArray:
        d, p = candidate.deployment, candidate.deployment.parallelism
        sizes = (
            p.tensor, p.pipeline, p.data, p.expert, d.knobs.max_num_batched_tokens, d.knobs.max_num_seqs,
            d.kv_bytes_per_element,
        )  # fmt: skip
        names = (
            d.accelerator.name, d.precision.name, d.engine.name, d.knobs.prefix_caching, d.speculative_mtp,
        )  # fmt: skip
        numbers = [self._number(kind, name) for kind, name in zip(NAMES, names, strict=True)]
        return np.array([*map(log2, sizes), *numbers], dtype=np.float64)

    def _number(self, kind: str, name: object) -> int:
        return self._numbers.setdefault((kind, name), len(self._numbers))

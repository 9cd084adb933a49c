"""A deployment that fits, with what simulating it takes: its memory, its step times, and how far they may be off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp
from typing import Any, ClassVar

from trilemma.deployment.memory import Memory
from trilemma.deployment.spec import Deployment
from trilemma.latency.constants import efficiency_of
from trilemma.latency.mixers import Typical
from trilemma.latency.step import StepModel
from trilemma.planner.question import Question
from trilemma.sim.calibrated import calibrated_errors
from trilemma.sim.interval import Error
from trilemma.sim.neighbours import Traits, load_neighbours, traits_of

USUAL_CLIENTS = 64  # at once on one replica: the load whose measured runs a candidate is compared with
_like: list[StepModel] = []  # this process's first step model: all others share what they have in common with it
_same: dict[tuple[str, str], list[Any]] = {}  # rows of the catalogue and models, each once in a process
_copies: dict[int, tuple[Any, Any]] = {}  # those that came with the last messages, and the rows that they are copies of
MOST_COPIES = 256


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A deployment of one replica that fits, with its memory, its latency model, and how far that may be off.

    `errors` maps "tpot" and "ttft" to what measured runs of like deployments say; the step model is already stretched
    by the mean of TPOT's, which is 0 where a calibration speaks of the deployment. Between processes a candidate
    travels without its step model, which is made again there.
    """

    deployment: Deployment
    memory: Memory
    typical: Typical
    errors: Mapping[str, Error]
    content: ClassVar[tuple[str, ...]] = ("deployment",)  # with a question's workload it decides the rest

    @cached_property
    def steps(self) -> StepModel:
        """The latency model. UnsupportedError for a number format without one."""
        d = self.deployment
        made = StepModel(
            d, efficiency_of(d), self.typical, stretch=exp(self.errors["tpot"].mean), like=_like[0] if _like else None
        )
        if not _like:
            _like.append(made)
        return made

    def forget(self) -> None:
        """Gives the tables of the step model back; they are made again where they are needed."""
        if "steps" in self.__dict__:
            self.steps.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "steps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        d = state["deployment"]
        for name in ("model", "precision", "accelerator", "engine"):  # step models share by identity
            object.__setattr__(d, name, _once(getattr(d, name)))
        self.__dict__.update(state)


def _once(value: Any) -> Any:  # noqa: ANN401 - any row with a name
    """The first equal value that this process has seen. Candidates of one message share their copies of a row, each of
    which is compared once."""
    known = _copies.get(id(value))
    if known is not None:
        return known[1]
    seen = _same.setdefault((type(value).__name__, value.name), [])
    found = next((other for other in seen if other is value or other == value), None)
    if found is None:
        seen.append(value)
        found = value
    if len(_copies) >= MOST_COPIES:
        _copies.clear()
    _copies[id(value)] = value, found  # held, so that its id stays its own
    return found


def typical_of(question: Question) -> Typical:
    """The lengths around which a question's step times are made affine."""
    prompt, output = question.workload.mean_tokens
    return Typical(prompt_tokens=prompt, context_tokens=prompt + output / 2)


def candidates_of(question: Question, fitting: Sequence[tuple[Deployment, Memory]]) -> list[Candidate]:
    """Deployments that fit as candidates. UnsupportedError for a number format that cannot be priced."""
    prompt, output = question.workload.mean_tokens
    typical = typical_of(question)
    alike: dict[tuple[object, ...], int] = {}
    traits: list[Mapping[str, object]] = []
    places = []
    for d, _ in fitting:
        wanted = traits_of(d, isl=prompt, osl=output, concurrency=USUAL_CLIENTS)
        place = alike.setdefault(tuple(wanted.values()), len(traits))
        if place == len(traits):
            traits.append(wanted)
        places.append(place)
    found = load_neighbours().correct(Traits.of(traits)) if traits else {}
    made = []
    for (deployment, held), place in zip(fitting, places, strict=True):
        said = {metric: correction.of(place) for metric, correction in found.items()}
        if deployment.engine.calibrations and efficiency_of(deployment).calibration is not None:
            said = {metric: Error(mean=0.0, deviation=0.0, quantiles=error.quantiles) for metric, error in said.items()}
        bare = Candidate(deployment=deployment, memory=held, typical=typical, errors=said)
        own = calibrated_errors(bare.steps, isl=prompt, osl=output, concurrency=USUAL_CLIENTS)
        said = said if own is None else dict(own)
        source = bare.steps.source
        doubted = {metric: error.doubted(source) for metric, error in said.items()}
        candidate = Candidate(deployment=deployment, memory=held, typical=typical, errors=doubted)
        candidate.__dict__["steps"] = bare.steps
        made.append(candidate)
    return made

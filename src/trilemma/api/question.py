"""A scenario file to a question with every name looked up."""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.catalogue import Catalogue, load_catalogue
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.model import Model
from trilemma.catalogue.offer import Offer
from trilemma.catalogue.precision import Precision
from trilemma.catalogue.staleness import stale_prices
from trilemma.errors import InputError
from trilemma.metrics.limits import Metric
from trilemma.planner.question import Objective, Question, Sizing, Space, Workload
from trilemma.scenario import Scenario, load_scenario
from trilemma.workload.requests import Requests
from trilemma.workload.sessions import generate_sessions
from trilemma.workload.synthetic import generate
from trilemma.workload.traces import read_trace
from trilemma.workload.transform import tile, window

# Spot is left out unless asked for: what an interruption loses is not priced yet.
DEFAULT_OFFERS = ("owned", "on-demand", "reserved-1y", "reserved-3y")
FEWEST_REQUESTS = 4000
KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, the scenario it came from, and the catalogue its names were found in."""

    question: Question
    scenario: Scenario
    catalogue: Catalogue


def ask(
    path: Path | str,
    *,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
) -> Asked:
    """Read a scenario with `overrides` over it and look its names up; notices are given as warnings."""
    changes = deepcopy(dict(overrides or {}))  # a mapping given whole may be changed by a dotted key behind it
    if seed is not None:
        changes["seed"] = str(seed)
    scenario = load_scenario(path, changes)
    files = [*scenario.catalogue_files, *catalogue_files]
    catalogue = load_catalogue(files, exchange_rates=scenario.economics.rates())
    model = catalogue.model(scenario.model_source, where=scenario.where("model"))
    space = _space(scenario, catalogue, model)
    economics = _economics(scenario, catalogue)
    as_of = scenario.as_of or datetime.now(UTC).date().isoformat()
    for text in stale_prices(space.offers, as_of):
        warnings.warn(text, UserWarning, stacklevel=2)
    question = Question(
        name=scenario.name,
        model=model,
        workload=_within_context(_workload(scenario, model), model),
        limits=scenario.parsed_limits,
        space=space,
        sizing=Sizing(headroom=float(scenario.sizing.headroom), spare_replicas=scenario.sizing.spare_replicas),
        economics=economics,
        confidence=scenario.confidence,
        objective=Objective(scenario.objective),
        as_of=as_of,
        seed=scenario.seed,
    )
    return Asked(question=question, scenario=scenario, catalogue=catalogue)


def _economics(scenario: Scenario, catalogue: Catalogue) -> Economics:
    """The catalogue's rates with the scenario's over them; a rate replaced by a number loses its sourced form."""
    defaults, asked = catalogue.economics, scenario.economics
    given: dict[str, Any] = dict(asked.given())
    figures = {name: figure for name, figure in defaults.figures.items() if name not in given}
    if asked.grid_region is not None:
        grid = catalogue.grid_region(asked.grid_region, where=scenario.where("economics", "grid_region"))
        figures["grid_gco2_per_kwh"] = grid.gco2_per_kwh
        given["grid_gco2_per_kwh"] = grid.gco2_per_kwh.value
    return replace(defaults, figures=figures, **given)


def _workload(scenario: Scenario, model: Model) -> Workload:
    asked = scenario.workload
    notes: list[str] = []
    clients = 0
    if asked.trace is not None:
        try:
            read = read_trace(asked.trace, format=asked.format or "auto", seed=scenario.seed, base=scenario.folder)
        except InputError as error:
            raise InputError(
                f"{scenario.where('workload', 'trace')}: {error.where}",
                expected=error.expected,
                found=error.found,
                hint=error.hint,
            ) from None
        notes += read.warnings
        requests, label = read.requests, read.name
        if asked.window is not None:
            requests = window(requests, asked.window.start_s, asked.window.end_s)
            if not len(requests):
                where = scenario.where("workload", "window")
                raise InputError(where, expected="at least one request in the window", found="none")
    elif asked.arrivals is not None and asked.sessions is not None:
        sessions = asked.sessions.value
        if asked.sessions.max_model_len is None and model.max_context_tokens:
            sessions = replace(sessions, max_model_len=model.max_context_tokens)
        requests = generate_sessions(asked.arrivals.value, sessions, seed=scenario.seed)
        label = f"sessions, {asked.arrivals.process} arrivals"
    else:
        if asked.arrivals is None or asked.lengths is None:
            raise InputError(scenario.where("workload"), expected="a trace, or arrivals with lengths", found="neither")
        load = generate(
            asked.arrivals.value, asked.lengths.prompt.value, asked.lengths.output.value, seed=scenario.seed
        )
        requests, label = load.requests, f"{asked.arrivals.process} arrivals"
        clients = load.closed_loop.concurrency if load.closed_loop is not None else 0
    if asked.rate_scale != 1:
        requests = requests.at_rate(asked.rate_scale)
    batch = requests.duration_s <= 0 and not clients
    has_deadline = any(limit.metric is Metric.DEADLINE for limit in scenario.parsed_limits)
    if has_deadline and not batch:
        where = scenario.where("limits")
        raise InputError(where, expected="a deadline only with batch arrivals", found="requests that arrive over time")
    if not batch and not clients and len(requests) < FEWEST_REQUESTS:
        requests, note = _long_enough(requests)
        notes.append(note)
    for text in notes:
        warnings.warn(text, UserWarning, stacklevel=2)
    return Workload(
        label=label,
        requests=requests,
        profile=None if asked.profile is None else asked.profile.value,
        batch=batch,
        clients=clients,
        period_s=asked.period_s,
        notes=tuple(notes),
    )


def _long_enough(requests: Requests) -> tuple[Requests, str]:
    """The requests as often as it takes for queues and tails to show: a few seconds of load end before either does."""
    times = -(-FEWEST_REQUESTS // len(requests))
    return tile(requests, times), f"{len(requests):,} requests are few for queues and tails: repeated {times} times"


def _within_context(workload: Workload, model: Model) -> Workload:
    """The workload, with a notice where requests are longer than the model's context: engines refuse those."""
    tokens = workload.requests.prompt_tokens + workload.requests.output_tokens
    longest, context = int(tokens.max()), model.max_context_tokens
    if not context or longest <= context:
        return workload
    text = (
        f"{int((tokens > context).sum()):,} of {len(tokens):,} requests exceed the {context:,} tokens of context that "
        f"{model.name} is made for (the longest has {longest:,}): engines refuse them unless its positions are scaled"
    )
    warnings.warn(text, UserWarning, stacklevel=3)
    return replace(workload, notes=(*workload.notes, text))


def _space(scenario: Scenario, catalogue: Catalogue, model: Model) -> Space:
    asked = scenario.space

    def where(key: str, index: int) -> str:
        return scenario.where("space", key, index)

    named = [
        catalogue.accelerator(name, where=where("accelerators", i)) for i, name in enumerate(asked.accelerators or ())
    ]
    accelerators = tuple(dict.fromkeys(a.name for a in named)) or tuple(catalogue.accelerators)
    rows = tuple(catalogue.accelerators[name] for name in accelerators)
    offers = _offers(scenario, catalogue, rows)
    if asked.precisions is not None:
        precisions = tuple(
            catalogue.precision(name, model=model, where=where("precisions", i))
            for i, name in enumerate(asked.precisions)
        )
    else:
        precisions = default_precisions(catalogue, model)
    engines = tuple(
        catalogue.engine(name, where=where("engines", i)) for i, name in enumerate(asked.engines or ("vllm",))
    )
    return Space(
        accelerators=rows,
        offers=offers,
        precisions=precisions,
        only_native=asked.precisions is None,
        engines=engines,
        tensor_parallel=tuple(asked.tensor_parallel or (1, 2, 4, 8)),
        kv_bytes_per_element=tuple(
            kv_bytes(name, where=where("kv_precisions", i)) for i, name in enumerate(asked.kv_precisions or ())
        ),
        max_num_batched_tokens=tuple(asked.max_num_batched_tokens or ()),
        max_num_seqs=tuple(asked.max_num_seqs or ()),
        pipeline_parallel=tuple(asked.pipeline_parallel or (1,)),
        data_parallel=tuple(asked.data_parallel or (1,)),
        expert_parallel=tuple(asked.expert_parallel or ()),
        prefix_caching=tuple(asked.prefix_caching or (False,)),
        speculative_mtp=tuple(asked.speculative_mtp or (False,)),
        max_gpus=asked.max_gpus,
        max_nodes=asked.max_nodes,
        budget_usd_per_month=asked.budget_usd_per_month,
        max_accuracy_loss_pct=asked.max_accuracy_loss_pct,
    )


def kv_bytes(name: str, *, where: str) -> float:
    """Bytes per element of a KV-cache format."""
    if name.lower() not in KV_BYTES:
        raise InputError(where, expected=f"one of {', '.join(KV_BYTES)}", found=repr(name))
    return KV_BYTES[name.lower()]


def default_precisions(catalogue: Catalogue, model: Model) -> tuple[Precision, ...]:
    """The published format, FP8 where that has 16 bits, and NVFP4: what is tried unless a scenario says.

    INT4 and INT8 are left to the user: what they cost in accuracy depends on the task.
    """
    names = [model.precision, *(["fp8"] if model.precision == "bf16" else []), "nvfp4"]
    if model.precision == "mxfp4":
        names = ["mxfp4"]
    return tuple(catalogue.precision(name, model=model) for name in dict.fromkeys(names))


def _offers(scenario: Scenario, catalogue: Catalogue, accelerators: tuple[Accelerator, ...]) -> tuple[Offer, ...]:
    """Offers of the accelerators by kind, or one by its own name."""
    found: dict[str, Offer] = {}
    for i, name in enumerate(scenario.space.offers or DEFAULT_OFFERS):
        place = scenario.where("space", "offers", i)
        if "/" in name:
            offer = catalogue.offer(name, where=place)
            if offer.accelerator not in {a.name for a in accelerators}:
                raise InputError(place, expected="an offer of an accelerator in the space", found=repr(name))
            found[offer.name] = offer
            continue
        for accelerator in accelerators:
            for offer in catalogue.offers_for(accelerator.name, kinds=(name,), where=place):
                found[offer.name] = offer
    if not found:
        names = ", ".join(a.name for a in accelerators)
        asked = ", ".join(scenario.space.offers or DEFAULT_OFFERS)
        where = scenario.where("space", "offers")
        raise InputError(where, expected=f"an offer of {names}", found=f"none for {asked}")
    return tuple(found.values())

"""How published benchmark runs were launched, where it matters to their latency and is not an engine's default.

Rows of measured runs name model, hardware and load, not flags. Some launch scripts hold prompts back on purpose, cut
prefill into other chunks or keep the KV cache in another format than the weights would suggest; data/launches.toml
says which. It describes benchmarks: nothing here is assumed of a deployment that is planned.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

FILE = "launches.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a launch script looks at: names as in the catalogue, lengths in tokens, closed-loop clients."""

    engine: str
    engine_version: str
    model: str
    accelerator: str
    family: str
    precision: str
    tp: int
    dp: int
    isl: int
    osl: int
    fixed_lengths: bool
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a script sets; None: it leaves the default. `held_steps` decode steps pass on average between a prompt's
    arrival at a busy engine and the first step that may schedule it."""

    kv_precision: str | None = None
    max_num_batched_tokens: int | None = None
    held_steps: float = 0.0

    @property
    def note(self) -> str:
        """What it does to scheduling, in words; "" where it leaves that alone."""
        texts = [f"{self.max_num_batched_tokens:,} tokens a step"] if self.max_num_batched_tokens else []
        texts += [f"prompts held back {self.held_steps:g} steps"] if self.held_steps else []
        return f"launched as published runs like it were: {', '.join(texts)}" if texts else ""


CONDITIONS: Mapping[str, Callable[[Any, Load], bool]] = {
    "engine": lambda wanted, x: x.engine == wanted,
    "models": lambda wanted, x: x.model in wanted,
    "families": lambda wanted, x: x.family in wanted,
    "accelerators": lambda wanted, x: x.accelerator in wanted,
    "precisions": lambda wanted, x: x.precision in wanted,
    "isl": lambda wanted, x: x.isl == wanted,
    "osl": lambda wanted, x: x.osl == wanted,
    "fixed_lengths": lambda wanted, x: x.fixed_lengths == wanted,
    "below_tp": lambda wanted, x: x.tp < wanted,
    "from_dp": lambda wanted, x: x.dp >= wanted,
    "from_concurrency": lambda wanted, x: x.concurrency >= wanted,
    "below_concurrency": lambda wanted, x: x.concurrency < wanted,
    "versions": lambda wanted, x: x.engine_version.startswith(tuple(wanted)),
}


HELD = {"receive_interval": 0.5, "batch_wait_iters": 1.0, "balance_wait_iters": 0.5}


@lru_cache(maxsize=4096)
def launch_of(load: Load) -> Launch:
    """What published launch scripts set for such a run; an empty Launch where none is known."""
    facts: dict[str, Any] = {}
    for row in _rows():
        if all(met(row[name], load) for name, met in CONDITIONS.items() if name in row):
            facts |= row
    budget = facts.get("max_num_batched_tokens")
    if "prompts_per_step" in facts:
        budget = max(budget or 0, facts["prompts_per_step"] * load.isl)
    # A look at the queue every n steps comes n/2 after an arrival; a wait for more prompts mostly runs to its end, for
    # they are seldom as many as it waits for; ranks that wait for each other's prompts find them halfway.
    held = sum(share * facts.get(name, 0) for name, share in HELD.items())
    return Launch(kv_precision=facts.get("kv_precision"), max_num_batched_tokens=budget, held_steps=held)


@cache
def _rows() -> tuple[Mapping[str, Any], ...]:
    text = (resources.files("trilemma.catalogue") / "data" / FILE).read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["launch"])

"""Which launch options an engine has at the version that is pinned: tables derived from the engines' own sources."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from trilemma.errors import UnsupportedError

ENGINES = ("vllm", "trtllm", "sglang")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: `kind` is int, float, str, json, bool, table, or flag (takes no value); `choices` empty: any."""

    kind: str
    choices: tuple[str, ...] = ()

    def reads(self, value: object) -> bool:
        """Whether the engine reads `value`, a word of a command line or a value of its YAML."""
        if self.choices:
            return value in self.choices
        if self.kind in {"bool", "table"}:
            return value is None or isinstance(value, bool if self.kind == "bool" else Mapping)
        readers: dict[str, Callable[[str], object]] = {"int": int, "float": float, "json": json.loads}
        try:
            readers.get(self.kind, str)(str(value))
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTable:
    """An engine at one version: its image, its options, the keys of its YAML (dotted), its metrics.

    `running` and `waiting` are the Prometheus gauges of requests in the batch and in the queue. `image_amd` is empty
    where no image for AMD GPUs is known.
    """

    engine: str
    version: str
    as_of: str
    reference: str
    image: str
    image_amd: str
    metrics_path: str
    running: str
    waiting: str
    options: Mapping[str, Option]
    keys: Mapping[str, Option]

    def complaints(self, words: Sequence[str]) -> list[str]:
        """What this version would not read of a command's words, from the first option on; empty where it reads all."""
        found = []
        for flag, value in _flags(words):
            option = self.options.get(flag)
            if option is None:
                found.append(f"{flag} is no option of {self.engine} {self.version}")
            elif (option.kind == "flag") != (value is None):
                found.append(f"{flag} takes {'no' if option.kind == 'flag' else 'one'} value")
            elif value is not None and not option.reads(value):
                found.append(f"{flag} does not read {value!r}")
        return found

    def key_complaints(self, document: Mapping[str, Any]) -> list[str]:
        """What this version would not read of its YAML."""
        found = []
        for key, value in _leaves(document):
            option = self.keys.get(key)
            if option is None:
                found.append(f"{key} is no key of {self.engine} {self.version}")
            elif not option.reads(value):
                found.append(f"{key} does not read {value!r}")
        return found

    def image_for(self, vendor: str) -> str:
        """The image for GPUs of a vendor. UnsupportedError where none is known."""
        image = self.image_amd if vendor.lower() == "amd" else self.image
        if not image:
            raise UnsupportedError(f"no image of {self.engine} for {vendor} GPUs is known: name one with --image")
        return image


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(option, value or None) of a command's words; what stands before the first option is left out."""
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        values = words[start + 1 : end]
        yield words[start], " ".join(values) if values else None


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@cache
def option_table(engine: str) -> OptionTable:
    """The table of an engine by its catalogue name. UnsupportedError for one without."""
    if engine not in ENGINES:
        raise UnsupportedError(f"the options of {engine} are not known here: only those of {', '.join(ENGINES)}")
    raw = tomllib.loads((files("trilemma.deploy") / "data" / f"{engine}.toml").read_text(encoding="utf-8"))
    metrics = raw["metrics"]
    return OptionTable(
        engine=raw["engine"],
        version=raw["version"],
        as_of=raw["as_of"],
        reference=raw["reference"],
        image=raw["image"],
        image_amd=raw.get("image_amd", ""),
        metrics_path=metrics["path"],
        running=metrics["running"],
        waiting=metrics["waiting"],
        options=_options(raw["options"]),
        keys=_options(raw.get("keys", {})),
    )


def _options(raw: Mapping[str, Any]) -> dict[str, Option]:
    return {name: Option(kind=row["type"], choices=tuple(row.get("choices", ()))) for name, row in raw.items()}

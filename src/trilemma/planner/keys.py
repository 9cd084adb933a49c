"""Work by its content: what is asked of a deployment gets the same key wherever and whenever it is asked again."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any

import numpy as np

import trilemma
from trilemma.planner.question import Question, Space

PLAIN = (NoneType, bool, int, float, str)
REMEMBERED = 4096  # values whose digest is kept: models, accelerators and engines come again with every deployment
# Of the space alone this decides what a simulation of one deployment gives: prices and the rest of the space do not.
DECIDES = ("max_gpus", "max_nodes")


def key_of(function: Callable[..., Any], question: Question, item: object) -> str:
    """A digest (64 hexadecimal digits) of all that `function(question, item)` depends on: the program, the workload's
    arrays, the limits, the sizing, the catalogue rows of the deployment.

    Prices are left out, with the offers but for how many GPUs they are bought in: work of the planner ends before
    anything is priced. Names and notes are left out too. TypeError for an item with parts that have no content, such
    as a function's closure.
    """
    plain: Callable[..., Any] = function.func if isinstance(function, partial) else function
    parts = (program_digest(), plain.__module__, plain.__qualname__, _asked(question), _digest(item))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def program_digest() -> str:
    """A digest of the program: its version, its sources and its shipped data."""
    root = os.path.dirname(trilemma.__file__)
    found = hashlib.sha256(trilemma.__version__.encode())
    for name in sorted(_files_under(root)):
        found.update(name.encode() + b"\0")
        with open(os.path.join(root, name), "rb", buffering=0) as file:
            found.update(hashlib.sha256(file.read()).digest())
    return found.hexdigest()


def _files_under(root: str) -> Iterator[str]:
    """The files of a folder by their paths inside it, with slashes; those of Python's cache left out."""
    for folder, folders, names in os.walk(root):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        yield from (names if inside == "." else (f"{inside}/{name}" for name in names))


_known: dict[int, tuple[object, str]] = {}  # by id, with the value itself, so that the id stays its own


def _remembered(value: object, make: Callable[[], str]) -> str:
    """`make()`, made once for the same immutable value."""
    found = _known.get(id(value))
    if found is None or found[0] is not value:
        if len(_known) >= REMEMBERED:
            _known.clear()
        found = _known[id(value)] = (value, make())
    return found[1]


def _asked(question: Question) -> str:
    """What of a question decides how a deployment fares."""

    def make() -> str:
        workload = question.workload
        bought = {a.name: sorted(o.purchase_unit_gpus for o in question.space.offers_for(a)) for a in _used(question)}
        parts = (
            question.model, workload.requests, workload.profile, workload.batch, workload.period_s, workload.clients,
            question.limits, question.sizing, question.confidence, question.seed,
            [getattr(question.space, name) for name in DECIDES], bought,
        )  # fmt: skip
        return _digest(parts)

    return _remembered(question, make)


def _used(question: Question) -> tuple[Any, ...]:
    """The accelerators whose purchase units decide anything: those of a job, which fills the units it pays for."""
    space: Space = question.space
    return space.accelerators if question.workload.batch else ()


def _digest(value: object) -> str:
    """A digest of a value made of frozen dataclasses, mappings, sequences, arrays, enums and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return _remembered(value, lambda: _of_dataclass(value))
    return hashlib.sha256(_bytes_of(value)).hexdigest()


def _of_dataclass(value: Any) -> str:  # noqa: ANN401 - any dataclass
    """Its class and fields; one that says what it stands for (`content`) is digested by that."""
    kind: type = type(value)
    text = "\n".join([f"{name} {_part(getattr(value, name))}" for name in _names(kind)])
    return hashlib.sha256(f"{kind.__qualname__}\n{text}".encode()).hexdigest()


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields that stand for a dataclass."""
    return getattr(kind, "content", None) or tuple(f.name for f in fields(kind))


def _part(value: object) -> str:
    """A scalar in words, with a space in them and no line break; anything else by its digest, which has no space."""
    plain = value.item() if isinstance(value, np.generic) else value
    kind = type(plain)
    return f"{kind.__name__} {plain!r}" if kind in PLAIN else _digest(plain)


def _bytes_of(value: object) -> bytes:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, Mapping):
        return "\n".join(sorted(f"{_digest(k)} {_digest(v)}" for k, v in value.items())).encode()
    if isinstance(value, frozenset | set):
        return "\n".join(sorted(map(_digest, value))).encode()
    if isinstance(value, list | tuple):
        return b"(" + "\n".join(map(_digest, value)).encode()
    return _of_scalar(value)


def _of_scalar(value: object) -> bytes:
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}".encode()
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, PLAIN):
        return f"{type(plain).__name__} {plain!r}".encode()
    raise TypeError(f"no content to make a key of: {type(value).__qualname__}")

"""Results as bytes and back: pickled, compressed, and read back only into classes that hold data."""

import copyreg
import gc
import io
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Final

import numpy as np

FORMAT: Final = 1
LEVEL: Final = 1  # of zlib: results shrink to a fifth, and more effort takes longer than it saves
# Beside this package's own classes: what numpy needs to put arrays and numbers together again.
ALLOWED: Final = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *(("builtins", name) for name in ("bytearray", "complex", "frozenset", "set", "slice", "range")),
    ("datetime", "date"),
    ("datetime", "datetime"),
}
# Another interpreter or numpy may sum in another order: its results are not this one's.
WRITTEN_BY: Final = f"{FORMAT} python{sys.version_info.major}.{sys.version_info.minor} numpy{np.__version__}"


class UnreadableError(Exception):
    """Bytes that are no result of this program: damaged, or of classes that are gone."""


Reduced = Callable[[Any], Any]  # what pickle is to do with a value


class Writer(pickle.Pickler):
    """Pickles dataclasses by the values of their fields: read back, they take a quarter of the time of their own way,
    and an answer has a hundred thousand."""

    def __init__(self, buffer: io.BytesIO, also: Mapping[type, Reduced] | None = None) -> None:
        """`also` says how values of some classes are put together again, in place of the usual way."""
        super().__init__(buffer, protocol=5)
        self.dispatch_table = _USUAL if also is None else _Reductions(also)


class _Reductions(dict[type, Reduced]):
    """How a value of each class is put together again, made when the class is first met."""

    def __missing__(self, kind: type) -> Reduced:
        """The reduction of a slotted dataclass; KeyError, which leaves it to pickle, for most other classes."""
        if not is_dataclass(kind) or kind.__dictoffset__:
            return copyreg.dispatch_table[kind]
        made = self[kind] = _by_fields(kind)
        return made


def _by_fields(kind: type) -> Reduced:
    """What puts a dataclass together again from the values of its fields."""
    names = _names(kind)
    if len(names) < 2:  # attrgetter gives a tuple of several names alone

        def reduced(value: object) -> object:
            return _put_together, (kind, tuple(getattr(value, name) for name in names))

        return reduced
    values = attrgetter(*names)
    return lambda value: (_put_together, (kind, values(value)))


_USUAL: Final = _Reductions()


class _Reader(pickle.Unpickler):
    """Unpickles this package's classes, arrays and plain values, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        """The class of that name. UnpicklingError for what could do more than hold data."""
        if module.partition(".")[0] == "trilemma":
            found = super().find_class(module, name)
            if isinstance(found, type) or found is _put_together:
                return found
        elif (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not kept in a store")


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass."""
    return tuple(field.name for field in fields(kind))


@cache
def _setters(kind: type) -> tuple[Callable[[object, object], None], ...]:
    """What sets the slots of a dataclass, frozen or not."""
    return tuple(getattr(kind, name).__set__ for name in _names(kind))


def _put_together(kind: type, values: tuple[object, ...]) -> object:
    """A slotted dataclass from the values of its fields. UnpicklingError where it has other fields by now."""
    setters = _setters(kind)
    if len(setters) != len(values):
        raise pickle.UnpicklingError(f"{kind.__qualname__} has {len(setters)} fields")
    made: object = object.__new__(kind)
    for set_slot, value in zip(setters, values, strict=True):
        set_slot(made, value)
    return made


@contextmanager
def without_collection() -> Iterator[None]:
    """Leaves garbage alone meanwhile: a hundred thousand new objects would be looked through again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def packed(value: object) -> bytes:
    """`value` as compressed bytes with a checksum."""
    buffer = io.BytesIO()
    Writer(buffer).dump(value)
    return zlib.compress(buffer.getvalue(), LEVEL)


def unpacked(content: bytes) -> object:
    """What was packed. UnreadableError where that is not to be had."""
    try:
        with without_collection():
            return _Reader(io.BytesIO(zlib.decompress(content))).load()
    except Exception as error:  # damaged bytes may raise anything
        raise UnreadableError(f"{type(error).__name__}: {error}") from None

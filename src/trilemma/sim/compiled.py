"""How this room's functions are compiled and where machine code is kept.

numba keeps machine code beside the source, or in the user's cache where that cannot be written, and recognises it by
the one file a function stands in. Functions here call each other across files, so the name under which their code is
kept carries a digest of all of them. Where nothing can be written they are compiled anew in every process; code that
was kept before is used also where its folder can only be read. What is kept saves time and is never a reason to fail:
what cannot be read is compiled anew, what cannot be written is not kept.
"""

import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator, NullCache

from trilemma.latency import table

_IMPORTS = re.compile(r"^from trilemma\.sim(?:\.(\w+))? import (.+?)(?: as \w+)?$", re.MULTILINE)


def _sources(file: Path, found: set[Path]) -> set[Path]:
    """A file of this room and the files of this room it imports, and theirs."""
    if file in found or not file.exists():
        return found
    found.add(file)
    for module, names in _IMPORTS.findall(file.read_text("utf-8")):
        for name in [module] if module else re.findall(r"\w+", names):
            _sources(file.with_name(f"{name}.py"), found)
    return found


@cache
def _digest(file: str) -> str:
    """Eight hexadecimal digits of everything that the machine code of a file's functions is made from."""
    value = 0
    for source in [*sorted(_sources(Path(file), set())), Path(table.__file__)]:
        value = zlib.crc32(source.read_bytes(), value)
    return f"{value:08x}"


# No function here makes or keeps an array, so numba's runtime is left out: counting references to the arrays of a tuple
# at every call takes longer than most functions. Dividing by zero is not checked for: no divisor here can be 0.
LEAN = {"error_model": "numpy", "_nrt": False}


class _BesideLocator(InTreeCacheLocator):
    """The folder beside the source, whether or not it can be written."""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_BesideLocator | None":
        locator: Any = cls(py_func, py_file)
        return locator if os.path.isdir(locator.get_cache_path()) else None


class _BesideImpl(CompileResultCacheImpl):
    _locator_classes = [_BesideLocator]  # noqa: RUF012 - numba's way


class _BesideCache(FunctionCache):
    """What was kept beside the source."""

    _impl_class = _BesideImpl


class _KeptCode(NullCache):
    """The machine code of one function: read from where numba keeps it or from beside the source, written to the first.

    Whatever goes wrong on the way (a full disk, a quota, a torn or foreign file, a folder that cannot be read) leaves
    the function without kept code. An index that cannot be read is written anew.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.places: list[Any] = []
        self.writable = False
        kinds: tuple[Any, ...] = (FunctionCache, _BesideCache)
        for kind in kinds:
            try:
                place = kind(function)
            except Exception:  # no folder to keep code in
                continue
            if place.cache_path not in [other.cache_path for other in self.places]:
                self.places.append(place)
                self.writable |= kind is FunctionCache

    @property
    def cache_path(self) -> str | None:
        return self.places[0].cache_path if self.places else None

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401
        for place in self.places:
            with suppress(Exception):
                code = place.load_overload(sig, target_context)
                # Two processes that began to write at once can have left one's code under the other's entry.
                if code is not None and tuple(code.signature.args) == tuple(sig):
                    return code
        return None

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        if not self.writable:
            return
        place = self.places[0]
        try:
            place.save_overload(sig, data)
        except OSError:
            pass
        except Exception:  # what is there cannot be read
            with suppress(Exception):
                place.flush()
                place.save_overload(sig, data)


def kept(function: Callable[..., Any], **options: Any) -> Any:  # noqa: ANN401 - a numba dispatcher has no type
    """The function compiled with numba's `options`, its machine code kept under a name of its own."""
    function.__qualname__ = f"{function.__qualname__}_{_digest(function.__code__.co_filename)}"
    dispatcher = njit(**options)(function)
    if hasattr(dispatcher, "_cache"):  # not where NUMBA_DISABLE_JIT leaves functions as they are
        dispatcher._cache = _KeptCode(function)
    return dispatcher


def compiled(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """A function that Python calls."""
    return kept(function, **LEAN)


def inner(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """A function that only compiled ones call: without an entry from Python, which halves the time to compile it."""
    return kept(function, **LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """An inner function that becomes part of its callers: a call would copy whole tuples of arrays."""
    return kept(function, **LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def embedded(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """An inner function that is part of its only caller from the start: quicker to compile than two large functions."""
    return kept(function, **LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, inline="always")

"""Where numba keeps the machine code of this room's functions.

numba keeps it beside the source, or in the user's cache where that cannot be written, and recognises it by the one file
a function stands in. Where nothing can be written functions are compiled anew in every process; code that was kept
before is used also where its folder can only be read. What is kept saves time and is never a reason to fail: what
cannot be read is compiled anew, what cannot be written is not kept.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from numba import njit, typeof
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator, NullCache


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


def dispatcher_of(function: Callable[..., Any], options: Mapping[str, Any], digest: str | None) -> Any:  # noqa: ANN401
    """numba's dispatcher of a function, its machine code kept under a name that carries `digest`; not kept for None."""
    if digest is not None:
        function.__qualname__ = f"{function.__qualname__}_{digest}"
    dispatcher = njit(**options)(function)
    if digest is not None and hasattr(dispatcher, "_cache"):  # NUMBA_DISABLE_JIT leaves functions as they are
        dispatcher._cache = _KeptCode(function)
    return dispatcher


def types_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What numba takes arguments for."""
    return tuple(typeof(one) for one in arguments)  # type: ignore[no-untyped-call]

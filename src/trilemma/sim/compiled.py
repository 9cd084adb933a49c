"""How this room's functions are compiled: what calls them decides how.

numba is imported when something has to be compiled, not before. The machine code of functions that Python calls is kept
bare (native.py), that of functions that only compiled ones call by numba (numba_code.py). Functions here call each
other across files, so the name under which code is kept carries a digest of all of them.
"""

import re
import zlib
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from trilemma.latency import table
from trilemma.sim.native import Entry

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
# Without an entry from Python, which halves the time to compile.
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Deferred:
    """A function with numba's options, which becomes a numba dispatcher when that is first needed: where it is called,
    where a compiled function that calls it is compiled, or where anything of a dispatcher is asked for."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], *, kept: bool = True) -> None:
        """`kept`: numba keeps its machine code."""
        self.py_func = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._options, self._kept = options, kept

    @cached_property
    def dispatcher(self) -> Any:  # noqa: ANN401 - a numba dispatcher has no type
        """numba's."""
        from trilemma.sim.numba_code import dispatcher_of

        digest = _digest(self.py_func.__code__.co_filename) if self._kept else None
        return dispatcher_of(self.py_func, self._options, digest)

    @property
    def _numba_type_(self) -> Any:  # noqa: ANN401 - how numba knows what a name in a function stands for
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401, D102 - the function's own
        return self.dispatcher(*arguments)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.dispatcher, name)


def entry(function: Callable[..., Any]) -> Entry:
    """A function that Python calls with numbers, arrays and tuples of them; it returns a number or nothing."""
    deferred = Deferred(function, {**LEAN, **INNER}, kept=False)
    return Entry(function, lambda: deferred.dispatcher, lambda: _digest(function.__code__.co_filename))


def compiled(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """A function that Python may call too, but seldom does: it needs numba for that."""
    return Deferred(function, LEAN)


def inner(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """A function that only compiled ones call."""
    return Deferred(function, {**LEAN, **INNER})


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """An inner function that becomes part of its callers: a call would copy whole tuples of arrays."""
    return Deferred(function, {**LEAN, **INNER, "forceinline": True})


def embedded(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """An inner function that is part of its only caller from the start: quicker to compile than two large functions."""
    return Deferred(function, {**LEAN, **INNER, "inline": "always"})

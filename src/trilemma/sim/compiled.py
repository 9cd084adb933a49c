"""How this room's functions are compiled and where machine code is kept.

numba keeps machine code beside the source, or in the user's cache where that cannot be written, and recognises it by
the one file a function stands in. Functions here call each other across files, so the name under which their code is
kept carries a digest of all of them. Where nothing can be written they are compiled anew in every process.
"""

import re
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

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


def kept(function: Callable[..., Any], **options: Any) -> Any:  # noqa: ANN401 - a numba dispatcher has no type
    """The function compiled with numba's `options`, its machine code kept under a name of its own."""
    function.__qualname__ = f"{function.__qualname__}_{_digest(function.__code__.co_filename)}"
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep code in
        return njit(**options)(function)


def compiled(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """A function that Python calls."""
    return kept(function, **LEAN)


def inner(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """A function that only compiled ones call: without an entry from Python, which halves the time to compile it."""
    return kept(function, **LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True)

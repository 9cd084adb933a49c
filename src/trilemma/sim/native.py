"""Compiled functions that Python calls: kept as bare machine code, loaded and called without the compiler.

To import numba and to load one function from its cache takes most of a second, many times what the simulations of a
small plan take. So the machine code of an entry is kept by itself: the object file that numba made, and one of a short
function before it, which llvmlite links into this process. That function takes one address, of a word for each argument
(a number, or where an array object lies), and passes on what numba's calling convention asks for: a place for the
result, one for an exception, then numbers as they are, and of each array two addresses of its owner (none here), its
length, item size, address, shape and strides.

An entry is compiled where no code is kept for the kinds of its arguments, its sources, versions and processor.
"""

import ctypes
import json
import os
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from trilemma.sim import kept

Kind = tuple[str, int, int]  # of an argument: its type, dimensions, and flags that machine code depends on

_IN_C_ORDER, _IN_FORTRAN_ORDER = 0x1, 0x2  # flags of an array; numba asks whether it is in the second if not the first
_FLAGS: Final = _IN_C_ORDER | _IN_FORTRAN_ORDER | 0x100 | 0x400  # and whether it is aligned and can be written
_CHARACTER: Final = {bool: "?", float: "d"}
_INTEGER: Final[Kind] = ("q", 0, 0)
_PASSED_AS: Final = {"?": "i8", "q": "i64", "Q": "i64", "d": "double"}  # numbers, in LLVM's words
_RESULTS: Final = {  # by numba's names
    "none": None, "bool": ctypes.c_bool, "int64": ctypes.c_int64, "uint64": ctypes.c_uint64, "float64": ctypes.c_double,
}  # fmt: skip
_PLAIN: Final = os.environ.get("NUMBA_DISABLE_JIT", "") not in {"", "0"}
_OK, _NONE = 0, -2  # what a function returns, by numba's calling convention
_HEAD: Final = object.__basicsize__
_DATA, _SHAPE, _STRIDES = _HEAD, _HEAD + 16, _HEAD + 24  # where they lie in an array object (numpy's PyArrayObject)
_ENTRY: Final = "trilemma_entry"


def lay_out(values: Iterable[Any], kinds: list[Kind], words: list[int]) -> None:
    """Appends of numbers, arrays and tuples of them the kinds and the words they are passed as, those of a tuple one
    after another.

    TypeError for anything else.
    """
    for value in values:
        if isinstance(value, np.ndarray) and value.ndim:
            flags = value.flags.num & _FLAGS
            kinds.append((value.dtype.char, value.ndim, flags & ~_IN_FORTRAN_ORDER if flags & _IN_C_ORDER else flags))
            words.append(id(value))
        elif type(value) is int:
            kinds.append(_INTEGER)
            words.append(value)
        elif isinstance(value, tuple):
            lay_out(value, kinds, words)
        else:
            number = value.item() if isinstance(value, np.generic) else value
            character = value.dtype.char if isinstance(value, np.generic) else _CHARACTER.get(type(value), "")
            character = {"l": "q", "L": "Q"}.get(character, character)  # longs have 64 bits, or another letter
            if character not in _PASSED_AS:
                raise TypeError(f"expected numbers, arrays or tuples of them, found {type(value).__name__}")
            kinds.append((character, 0, 0))
            words.append(array("q", array("d", [number]).tobytes())[0] if character == "d" else _signed(number))


def _signed(number: int) -> int:
    """The signed word with the bits of an unsigned one; OverflowError for more bits than a word has."""
    return number if number < 2**63 else number - 2**64


def _before(name: str, kinds: Sequence[Kind]) -> str:
    """The function before a compiled one, in LLVM's language."""
    lines = list(_passing(kinds))
    passed = [line[1] for line in lines if line[1]]
    body = "\n".join(line[0] for line in lines if line[0])
    declared = ", ".join(one.split()[0] for one in passed)
    return (
        f'declare i32 @"{name}"(ptr, ptr, {declared})\n'
        f"define i32 @{_ENTRY}(ptr %words, ptr %result, ptr %raised) {{\n{body}\n"
        f'%status = call i32 @"{name}"(ptr %result, ptr %raised, {", ".join(passed)})\nret i32 %status\n}}\n'
    )


def _passing(kinds: Sequence[Kind]) -> Iterator[tuple[str, str]]:
    """(an instruction or "", an argument to be passed on or "") in order."""
    for i, (character, dimensions, _) in enumerate(kinds):
        yield f"%at{i} = getelementptr i64, ptr %words, i64 {i}", ""
        if not dimensions:
            kind = _PASSED_AS[character]
            yield f"%v{i} = load {kind}, ptr %at{i}", f"{kind} %v{i}"
            continue
        yield f"%o{i} = load ptr, ptr %at{i}", ""
        for part, offset in (("data", _DATA), ("shape", _SHAPE), ("strides", _STRIDES)):
            yield f"%{part}{i}p = getelementptr i8, ptr %o{i}, i64 {offset}\n%{part}{i} = load ptr, ptr %{part}{i}p", ""
        sizes = [f"%shape{i}d{d}" for d in range(dimensions)]
        for part in ("shape", "strides"):
            for d in range(dimensions):
                yield f"%{part}{i}a{d} = getelementptr i64, ptr %{part}{i}, i64 {d}", ""
                yield f"%{part}{i}d{d} = load i64, ptr %{part}{i}a{d}", ""
        yield f"%n{i}x0 = add i64 0, {sizes[0]}", ""
        for d in range(1, dimensions):
            yield f"%n{i}x{d} = mul i64 %n{i}x{d - 1}, {sizes[d]}", ""
        yield "", "ptr null"
        yield "", "ptr null"
        yield "", f"i64 %n{i}x{dimensions - 1}"
        yield "", f"i64 {np.dtype(character).itemsize}"
        yield "", f"ptr %data{i}"
        for part in ("shape", "strides"):
            for d in range(dimensions):
                yield "", f"i64 %{part}{i}d{d}"


class Code:
    """Machine code linked into this process, ready to be called."""

    def __init__(self, objects: Sequence[bytes], result: str) -> None:
        """`objects`: object files, one of which has the function before the compiled one; `result`: what that returns.

        ValueError where it is not there."""
        from llvmlite import binding

        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine())
        for content in objects:
            self._engine.add_object_file(binding.ObjectFileRef.from_data(content))
        self._engine.finalize_object()
        address = self._engine.get_function_address(_ENTRY)
        if not address:
            raise ValueError("kept code has no entry")
        kind = _RESULTS[result]
        self._result = None if kind is None else kind()
        self._raised = ctypes.c_void_p()
        into = self._raised if self._result is None else self._result
        self._places = ctypes.addressof(into), ctypes.addressof(self._raised)
        self._call = ctypes.PYFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)(address)

    def __call__(self, words: Sequence[int]) -> Any:  # noqa: ANN401
        """The function's result; RuntimeError where it raised."""
        buffer = array("q", words)
        status = self._call(buffer.buffer_info()[0], *self._places)
        if status not in (_OK, _NONE):
            raise RuntimeError(f"a compiled function failed with status {status}")
        return None if self._result is None else self._result.value


def _machine() -> Any:  # noqa: ANN401
    """What code is linked and emitted for: one for each engine, which takes it over."""
    from llvmlite import binding

    _ready()
    return binding.Target.from_default_triple().create_target_machine(jit=True)


@cache
def _ready() -> None:
    """Once a process, before any code is made or linked; RuntimeError where array objects are not laid out as it
    assumes."""
    from llvmlite import binding

    probe = np.zeros((3, 5))
    data, shape, strides = (ctypes.c_void_p.from_address(id(probe) + at).value for at in (_DATA, _SHAPE, _STRIDES))
    sizes = [list((ctypes.c_ssize_t * 2).from_address(at)) if at else [] for at in (shape, strides)]
    if [data, *sizes] != [probe.ctypes.data, [3, 5], [40, 8]]:
        raise RuntimeError(
            "array objects of this numpy are laid out otherwise; set NUMBA_DISABLE_JIT=1 to go on slowly"
        )
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@cache
def _made_by() -> str:
    """What machine code depends on beside its source: compilers, numpy's arrays and this machine's processor."""
    from llvmlite import binding

    versions = [f"{package} {version(package)}" for package in ("numba", "llvmlite", "numpy")]
    places = f"{_DATA} {_SHAPE} {_STRIDES}"
    return " ".join([*versions, places, binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()])


class Entry:
    """A compiled function that Python calls with numbers, arrays and tuples of them; it returns a number or nothing.

    `compiled` counts the kinds of arguments that it was compiled for here, `loaded` those whose code was kept.
    """

    def __init__(self, function: Callable[..., Any], dispatcher: Callable[[], Any], digest: Callable[[], str]) -> None:
        """`dispatcher` makes numba's dispatcher, `digest` says what the function is made from."""
        self.py_func = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.compiled = self.loaded = 0
        self._dispatcher, self._digest = dispatcher, digest
        self._codes: dict[tuple[Kind, ...], Code] = {}
        self._file = Path(function.__code__.co_filename)

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401, D102 - the function's own
        if _PLAIN:
            return self.py_func(*arguments)
        kinds: list[Kind] = []
        words: list[int] = []
        lay_out(arguments, kinds, words)
        key = tuple(kinds)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = self._loaded(key) or self._compiled(key, arguments)
        return code(words)

    def _name(self, kinds: tuple[Kind, ...]) -> str:
        """The file that keeps the code for these kinds of arguments."""
        made_from = f"{self._digest()} {_made_by()} {kinds}"
        return f"{self._file.stem}.{self.__name__}-{sha256(made_from.encode()).hexdigest()[:16]}.code"

    def _loaded(self, kinds: tuple[Kind, ...]) -> Code | None:
        """The code that is kept; None where there is none, or none that is whole."""
        for path in kept.found(self._file, self._name(kinds)):
            try:
                head, _, content = path.read_bytes().partition(b"\n")
                said = json.loads(head)
                if said["crc"] == zlib.crc32(content) and said["kinds"] == repr(kinds):
                    code = Code([content[: said["first"]], content[said["first"] :]], said["result"])
                    self.loaded += 1
                    return code
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def _compiled(self, kinds: tuple[Kind, ...], arguments: tuple[Any, ...]) -> Code:
        """The code compiled now, and kept."""
        from llvmlite import binding

        from trilemma.sim.numba_code import types_of

        dispatcher, signature = self._dispatcher(), types_of(arguments)
        dispatcher.compile(signature)
        found = dispatcher.overloads[signature]
        name, result = found.fndesc.llvm_func_name, str(found.signature.return_type)
        found.library.get_pointer_to_function(name)  # now it is machine code
        own = found.library._get_compiled_object()
        before = _machine().emit_object(binding.parse_assembly(_before(name, kinds)))
        self.compiled += 1
        said = {"result": result, "kinds": repr(kinds), "first": len(own), "crc": zlib.crc32(own + before)}
        kept.keep(self._file, self._name(kinds), json.dumps(said).encode() + b"\n" + own + before)
        return Code([own, before], result)

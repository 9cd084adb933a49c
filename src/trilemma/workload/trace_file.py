"""From a trace's name to its text: shipped names, relative paths, gzip, and what can be wrong with a file."""

import difflib
import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trilemma.errors import InputError

_DATA = Path(__file__).parent / "data"
_GZIP_MAGIC = b"\x1f\x8b"
_KEPT_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedTrace:
    """A trace inside the package: its file in data/, what it is, and whom to credit."""

    file: str
    what: str
    attribution: str
    licence: str


SHIPPED: Final[Mapping[str, ShippedTrace]] = {
    "azure_2023_conv": ShippedTrace(
        file="azure_2023_conv.csv.gz",
        what="one hour of a conversation service on Azure, 2023-11-16, 19,366 requests",
        attribution="Microsoft Azure Public Dataset, Azure LLM inference trace 2023 (conversation), recompressed; "
        "Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024",
        licence="CC-BY 4.0",
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceText:
    """A trace's lines; `place` is what messages call the file, `digest` the SHA-256 of its decompressed bytes."""

    place: str
    lines: list[str]
    digest: str


def resolve(name_or_path: str | Path, *, base: Path | None = None) -> Path:
    """The file behind a shipped name or a path; a relative one is looked for in `base`, then where the user stands.

    Raises InputError with the nearest names where nothing is found, and for anything that is not a file.
    """
    if isinstance(name_or_path, str) and name_or_path in SHIPPED:
        return _DATA / SHIPPED[name_or_path].file
    place = str(name_or_path)
    expected = f"a trace file or a shipped name ({', '.join(SHIPPED)})"
    if not place.strip() or "\0" in place:
        raise InputError("trace", expected=expected, found=repr(place))
    try:
        path = Path(place).expanduser()
        tries = [base / path, path] if base is not None else [path]
        for candidate in tries:
            if candidate.is_file():
                return candidate
        there = next((candidate for candidate in tries if candidate.exists()), None)
    except (OSError, RuntimeError) as error:
        raise InputError(place, expected=expected, found=_reason(error)) from None
    if there is not None:
        found = "a directory" if there.is_dir() else "something that is not a regular file"
        raise InputError(place, expected=expected, found=found)
    looked = ", ".join(dict.fromkeys(str(candidate.parent) for candidate in tries))
    hint = f"looked in {looked}"
    if near := _nearest(path, tries):
        hint = f"nearest: {', '.join(near)}; {hint}"
    raise InputError(place, expected=expected, found="no such file", hint=hint)


def read_text(path: Path, place: str) -> TraceText:
    """The lines of a plain or gzipped text file.

    Raises InputError for an unreadable, truncated, empty or binary file.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP_MAGIC):
            raw = gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(place, expected="a whole gzip file", found=f"a damaged one: {error}") from None
    except OSError as error:
        raise InputError(place, expected="a readable trace file", found=_reason(error)) from None
    if b"\0" in raw:
        raise InputError(place, expected="a text file (CSV or JSON lines, gzipped or not)", found="binary data")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place}:{line}", expected="a text file in UTF-8", found="other bytes") from None
    # Only real line ends: str.splitlines would also cut at characters that JSON strings may hold.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not text.strip():
        raise InputError(place, expected="a trace with at least one request", found="an empty file")
    return TraceText(place=place, lines=lines, digest=hashlib.sha256(raw).hexdigest())


def _nearest(path: Path, tries: list[Path]) -> list[str]:
    """Shipped names and neighbours in the folders looked in that resemble the missing name."""
    names = list(SHIPPED)
    for folder in {candidate.parent for candidate in tries}:
        if folder.is_dir():
            names += [str(path.parent / entry.name) for entry in folder.iterdir() if entry.is_file()]
    return difflib.get_close_matches(str(path), dict.fromkeys(sorted(names)), n=_KEPT_NAMES)


def _reason(error: BaseException) -> str:
    """What the system said, without its error number and the path."""
    return (getattr(error, "strerror", None) or str(error)).lower()

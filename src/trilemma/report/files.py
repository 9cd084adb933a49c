"""Files that are there whole or not at all, and known to be writable before the work that fills them begins."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trilemma.errors import InputError


@contextmanager
def whole_file(path: Path, *, where: str) -> Iterator[Path]:
    """A file beside `path` to be written, renamed into its place at the end; removed again where the writing fails.

    What is no regular file (a pipe, a device) is written to directly. Raises InputError, naming `where` (a flag), where
    the system refuses.
    """
    target = _target(path, where=where)
    try:
        if target.exists() and not target.is_file():
            yield target
            return
        temporary = _temporary(target)
        try:
            yield temporary
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, where, error) from None


def check_writable(path: Path, *, where: str) -> None:
    """Raises InputError, naming `where`, if a file could not be written under `path`: a run of minutes comes first."""
    target = _target(path, where=where)
    try:
        if target.exists() and not target.is_file():
            return
        temporary = _temporary(target)
        try:
            temporary.touch(exist_ok=False)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, where, error) from None


def check_apart(paths: Mapping[str, Path | None]) -> None:
    """InputError where two flags name the same file, which the second would overwrite."""
    seen: dict[Path, str] = {}
    for where, path in paths.items():
        if path is None:
            continue
        place = path.expanduser().resolve()
        if place in seen and not (place.exists() and not place.is_file()):
            raise InputError(f"{where} {path}", expected="a file of its own", found=f"that of {seen[place]}")
        seen[place] = where


def _target(path: Path, *, where: str) -> Path:
    """Where a file really lies, links followed."""
    target = path.expanduser().resolve()
    if not target.name or target.is_dir():
        raise InputError(f"{where} {path}", expected="a file to write", found="a folder")
    return target


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _refused(path: Path, where: str, error: OSError) -> InputError:
    found = str(error.strerror or error).lower()
    return InputError(f"{where} {path}", expected="a file to write", found=found)

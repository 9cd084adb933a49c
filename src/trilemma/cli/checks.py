"""What `doctor` looks at: one function per check, each giving a status, what was found and what to do about it."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Final

import trilemma
from trilemma.units import show_bytes

OLDEST_PYTHON: Final = (3, 11)
LEAST_MEMORY_BYTES: Final = 2 * 2**30  # a plan over an hour's trace holds some hundred MB beside the libraries

Finding = tuple[str, str, str]  # status (ok, warn, fail), what was found, what to do


def examine() -> list[dict[str, object]]:
    """Every check as a row of check, status, found and note; a check that breaks is a failed check."""
    rows: list[dict[str, object]] = []
    for name, check in CHECKS.items():
        try:
            status, found, note = check()
        except Exception as error:
            status, found, note = "fail", f"{type(error).__name__}: {error}", "this part of the program does not work"
        rows.append({"check": name, "status": status, "found": found, "note": note or None})
    return rows


def _python() -> Finding:
    good = sys.version_info >= OLDEST_PYTHON
    note = "" if good else f"needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer"
    return "ok" if good else "fail", f"{platform.python_version()} on {platform.platform(terse=True)}", note


def _libraries() -> Finding:
    found = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "pydantic", "PyYAML", "typer")}
    return "ok", ", ".join(f"{name} {version}" for name, version in found.items()), ""


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "ok", str(cores), ""


def _memory() -> Finding:
    try:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return "warn", "unknown", "this system does not tell its memory"
    good = memory_bytes >= LEAST_MEMORY_BYTES
    return "ok" if good else "warn", show_bytes(memory_bytes), "" if good else "large traces may not fit"


def _compiled_cache() -> Finding:
    spec = importlib.util.find_spec("trilemma.sim")
    beside = [Path(place) / "__pycache__" for place in (spec.submodule_search_locations or [])] if spec else []
    named = os.environ.get("NUMBA_CACHE_DIR")
    for folder in [Path(named)] if named else beside:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return "ok", str(folder), ""
        except OSError:
            continue
    note = "each run compiles the simulator anew; set NUMBA_CACHE_DIR to a folder you may write to"
    return "warn", "not writable", note


def _catalogue() -> Finding:
    from trilemma import api

    return "ok", f"trilemma {trilemma.__version__}, digest {api.catalogue_digest()}", ""


def _prices() -> Finding:
    from trilemma import api
    from trilemma.catalogue.dates import age_days, day_of
    from trilemma.catalogue.staleness import STALE_DAYS

    dates = {str(row["as_of"]) for row in api.catalogue("offers") if row.get("as_of")}
    if not dates:
        return "fail", "no dated price", "the shipped price table is empty"
    by_day = sorted(dates, key=lambda text: day_of(text, where="offers"))
    age = age_days(by_day[-1], date.today())
    found = f"from {by_day[0]} to {by_day[-1]}"
    if age <= STALE_DAYS:
        return "ok", found, ""
    return "warn", found, f"the newest is {age} days old: bring your own with --catalogue"


def _trace() -> Finding:
    from trilemma import api

    statistics = api.workload("azure_2023_conv")
    return "ok", f"azure_2023_conv, {statistics['requests']} requests", ""


def _simulator() -> Finding:
    from trilemma import api

    return "ok", f"compiled or loaded, and run, in {api.compile_simulator():.1f} s", ""


CHECKS: Final[Mapping[str, Callable[[], Finding]]] = {
    "python": _python,
    "libraries": _libraries,
    "cores": _cores,
    "memory": _memory,
    "compiled cache": _compiled_cache,
    "catalogue": _catalogue,
    "prices": _prices,
    "shipped trace": _trace,
    "simulator": _simulator,
}

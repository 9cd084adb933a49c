"""Rebuilds the shipped surfaces of kernel times from raw kernel tables.

    python benchmarks/fit_surfaces.py KERNEL_FOLDER [FAMILY ...]

A family is a module of benchmarks/surfaces with `surfaces(folder) -> Iterator[tuple[key, Surface]]`; without any named,
all are fitted. Surfaces of other families stay as they are in src/trilemma/catalogue/data/kernels.npz. Needs the
`rebuild` extra.
"""

import argparse
import importlib
import os
import pkgutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "trilemma" / "catalogue" / "data" / "kernels.npz"


def families() -> list[str]:
    """Names of the modules that have surfaces to offer."""
    package = importlib.import_module("benchmarks.surfaces")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [name for name in names if hasattr(importlib.import_module(f"benchmarks.surfaces.{name}"), "surfaces")]


def merge(new: dict) -> dict:
    """What is shipped, with the operations of `new` replaced."""
    from trilemma.catalogue.surfaces import load_surfaces

    load_surfaces.cache_clear()
    shipped = dict(load_surfaces()) if TARGET.exists() else {}
    operations = {key[0] for key in new}
    return {key: surface for key, surface in shipped.items() if key[0] not in operations} | new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("family", nargs="*")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from benchmarks.surfaces.grid import write

    new = {}
    for family in arguments.family or families():
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.surfaces.{family}")
        for key, surface in module.surfaces(arguments.folder):
            low, high = surface.spread
            print(
                f"{' '.join(key):45s} {surface.points:6d} rows, measured / fitted {low:.2f} to {high:.2f}", flush=True
            )
            new[key] = surface
        print(f"{family}: {time.monotonic() - began:.0f} s")
    half_done = TARGET.with_suffix(f".{os.getpid()}.tmp")
    write(half_done, merge(new))
    half_done.replace(TARGET)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

"""The walls of the house: what each room may import. Data flows down; a new arrow is argued in docs/decisions/."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "trilemma"
PURE_TOP = "errors units"

MAY_IMPORT = {
    "errors": "",
    "units": "errors",
    "catalogue": PURE_TOP,
    "workload": PURE_TOP,
    "deployment": f"{PURE_TOP} catalogue",
    "metrics": f"{PURE_TOP} workload",
    "latency": f"{PURE_TOP} catalogue deployment",
    "sim": f"{PURE_TOP} catalogue workload deployment metrics latency",
    "cost": f"{PURE_TOP} catalogue deployment metrics",
    "search": PURE_TOP,
    "calibration": f"{PURE_TOP} catalogue workload deployment metrics latency sim",
    "store": PURE_TOP,
    "bench": f"{PURE_TOP} workload metrics",
    "watch": f"{PURE_TOP} workload metrics bench",
    "planner": f"{PURE_TOP} catalogue workload deployment metrics latency sim cost search",
    "scenario": f"{PURE_TOP} catalogue workload deployment metrics cost planner",
    "deploy": f"{PURE_TOP} catalogue deployment planner",
    "report": f"{PURE_TOP} catalogue workload deployment metrics latency cost planner",
    "api": (
        f"{PURE_TOP} catalogue workload deployment metrics latency sim cost search store bench calibration watch"
        " planner scenario report deploy"
    ),
    "cli": f"{PURE_TOP} catalogue report api deploy",
}


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> set[str]:
    """Rooms of trilemma imported anywhere in the tree, inside functions and type-checking blocks too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide walls"
            names = [
                f"{node.module}.{alias.name}" if node.module == "trilemma" else str(node.module) for alias in node.names
            ]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "trilemma" and len(parts) > 1:
                found.add(parts[1])
    return found - {"__version__"}


SOURCES = sorted(path for path in SRC.rglob("*.py") if path.parent != SRC or path.name not in {"__init__.py"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(SRC)))
def test_every_import_goes_through_a_door(path):
    room = room_of(path)
    broken = imported_rooms(ast.parse(path.read_text())) - set(MAY_IMPORT[room].split()) - {room}
    assert not broken, f"{path.name}: {room} may not import {sorted(broken)}"


def test_the_plan_itself_has_no_loop():
    order = list(TopologicalSorter({room: doors.split() for room, doors in MAY_IMPORT.items()}).static_order())
    assert set(order) == set(MAY_IMPORT)


def test_only_the_simulator_imports_numba():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        names = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        names |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        if any(name.split(".")[0] in {"numba", "llvmlite"} for name in names):
            assert room_of(path) == "sim"


@pytest.mark.parametrize(
    "planted",
    ["from trilemma.sim import kernel", "def f():\n    import trilemma.planner.plan", "from trilemma import api"],
)
def test_a_planted_violation_is_seen(planted):
    assert imported_rooms(ast.parse(planted)) & {"sim", "planner", "api"}

"""Engine and precision rows: tables of engines.toml and precisions.toml as values."""

from trilemma.catalogue.engine import Effort, Engine, SchedulerDefaults, Topology
from trilemma.catalogue.hardware import FORMATS
from trilemma.catalogue.precision import FamilyRule, Precision, Role
from trilemma.catalogue.rows import Row
from trilemma.errors import InputError

ROLES = {role.value: role for role in Role}


def read_engine(name: str, row: Row) -> Engine:
    """One engine; InputError names file and key of the first thing wrong."""
    share = row.figure("gpu_memory_utilization", above_zero=True)
    if share.high > 1:
        raise InputError(row.place("gpu_memory_utilization"), expected="a share of at most 1", found=f"{share.high:g}")
    framework = row.figure("framework_bytes")
    engine = Engine(
        name=name,
        title=row.text("title"),
        version=row.text("version"),
        aliases=row.texts("aliases"),
        vendors=row.texts("vendors"),
        note=row.text("note", ""),
        as_of=row.day("as_of"),
        reference=row.text("reference"),
        block_tokens=row.count("block_tokens"),
        gpu_memory_utilization=share.value,
        framework_bytes=framework.value,
        scheduler_defaults=tuple(_scheduler(below) for below in row.entries("scheduler_defaults")),
        effort=_effort(row.table("effort")),
        figures={"gpu_memory_utilization": share, "framework_bytes": framework},
    )
    row.end()
    if all(defaults.min_hbm_bytes for defaults in engine.scheduler_defaults):
        raise InputError(
            row.place("scheduler_defaults"), expected="a last row with min_hbm_bytes = 0",
            found="none", hint="smaller GPUs need defaults too",
        )  # fmt: skip
    return engine


def _effort(row: Row) -> dict[Topology, Effort]:
    """Weeks and upkeep of every topology."""
    effort = {}
    for topology in Topology:
        below = row.table(topology.value)
        effort[topology] = Effort(weeks=below.figure("weeks"), upkeep_scale=below.figure("upkeep_scale"))
        below.end()
    row.end()
    return effort


def _scheduler(row: Row) -> SchedulerDefaults:
    defaults = SchedulerDefaults(
        min_hbm_bytes=row.number("min_hbm_bytes"),
        max_num_batched_tokens=row.count("max_num_batched_tokens"),
        max_num_seqs=row.count("max_num_seqs"),
        except_families=row.texts("except_families"),
    )
    row.end()
    return defaults


def read_precision(name: str, row: Row) -> Precision:
    """One number format; InputError names file and key of the first thing wrong."""
    bits = row.number("bits_per_weight", above_zero=True)
    if bits > 16:
        raise InputError(row.place("bits_per_weight"), expected="at most 16 bits", found=f"{bits:g}")
    precision = Precision(
        name=name,
        aliases=row.texts("aliases"),
        bits_per_weight=bits,
        quantised=_roles(row, "quantised"),
        quantised_dense=_roles(row, "quantised_dense") if row.has("quantised_dense") else None,
        compute=row.word("compute", FORMATS),
        fallback_compute=row.word("fallback_compute", FORMATS) if row.has("fallback_compute") else None,
        kv_bytes_per_element=row.number("kv_bytes_per_element", above_zero=True),
        note=row.text("note"),
        as_of=row.day("as_of"),
        reference=row.text("reference"),
        on={family: _rule(below) for family, below in row.tables("on").items()},
    )
    row.end()
    return precision


def _roles(row: Row, key: str) -> frozenset[Role]:
    names = row.texts(key)
    unknown = [name for name in names if name not in ROLES]
    if unknown or not row.has(key):
        raise InputError(
            row.place(key), expected=f"a list of {', '.join(ROLES)}", found=repr(unknown[0]) if unknown else "nothing"
        )
    return frozenset(ROLES[name] for name in names)


def _rule(row: Row) -> FamilyRule:
    compute = row.word("compute", FORMATS) if row.has("compute") else None
    rule = FamilyRule(compute=compute, reason=row.text("reason"))
    row.end()
    return rule

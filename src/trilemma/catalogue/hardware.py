"""Accelerator rows: a table of accelerators.toml as an `Accelerator`."""

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.figure import Figure
from trilemma.catalogue.rows import Row

FORMATS = ("bf16", "fp8", "int8", "fp4")
NUMBERS = (
    "hbm_bytes", "hbm_bytes_per_s", "link_bytes_per_s", "network_bytes_per_s",
    "tdp_w", "idle_w", "decode_w", "prefill_w", "chassis_w", "node_max_w",
)  # fmt: skip


def read_accelerator(name: str, row: Row) -> Accelerator:
    """One accelerator; InputError names file and key of the first thing wrong."""
    figures: dict[str, Figure] = {key: row.figure(key, above_zero=key != "chassis_w") for key in NUMBERS}
    value = {key: figure.value for key, figure in figures.items()}
    below = row.table("flops")
    flops = {key: below.figure(key, above_zero=True) for key in FORMATS if key == "bf16" or below.has(key)}
    below.end()
    accelerator = Accelerator(
        name=name,
        title=row.text("title"),
        vendor=row.text("vendor"),
        family=row.text("family"),
        aliases=row.texts("aliases"),
        note=row.text("note", ""),
        flops={key: figure.value for key, figure in flops.items()},
        link_domain_gpus=row.count("link_domain_gpus"),
        gpus_per_node=row.count("gpus_per_node"),
        purchase_unit_gpus=row.count("purchase_unit_gpus"),
        figures=figures | {f"flops.{key}": figure for key, figure in flops.items()},
        hbm_bytes=value["hbm_bytes"],
        hbm_bytes_per_s=value["hbm_bytes_per_s"],
        link_bytes_per_s=value["link_bytes_per_s"],
        network_bytes_per_s=value["network_bytes_per_s"],
        tdp_w=value["tdp_w"],
        idle_w=value["idle_w"],
        decode_w=value["decode_w"],
        prefill_w=value["prefill_w"],
        chassis_w=value["chassis_w"],
        node_max_w=value["node_max_w"],
    )
    row.end()
    return accelerator

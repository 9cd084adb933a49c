"""An accelerator with its node: memory, compute, links, power; SI units, per GPU unless the name says node."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trilemma.catalogue.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator as bought and wired.

    `flops` maps compute format ("bf16", "fp8", "int8", "fp4") to dense FLOP/s, no sparsity; a missing key means the
    hardware cannot multiply in it. `link_bytes_per_s` is one direction, per GPU, inside a link domain of
    `link_domain_gpus`; `network_bytes_per_s` one direction, per GPU, between domains. Node power at a moment =
    `chassis_w` + the watts of its GPUs by state: `idle_w` with a model loaded, `decode_w` and `prefill_w` averages
    while serving; `node_max_w` = `chassis_w` + `gpus_per_node` x `tdp_w`. `hbm_bytes` is what the driver shows an
    engine. A rack that is one link domain and bought as one (NVL72) is one node. `purchase_unit_gpus` is the fewest
    GPUs that can be bought. `family` groups accelerators that share efficiencies. `figures` keeps every number's
    sourced form under the field's own name ("flops.bf16" for FLOPS).
    """

    name: str
    title: str
    vendor: str
    family: str
    hbm_bytes: float
    hbm_bytes_per_s: float
    flops: Mapping[str, float]
    link_bytes_per_s: float
    link_domain_gpus: int
    network_bytes_per_s: float
    gpus_per_node: int
    purchase_unit_gpus: int
    tdp_w: float
    idle_w: float
    decode_w: float
    prefill_w: float
    chassis_w: float
    node_max_w: float
    aliases: tuple[str, ...] = ()
    note: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)

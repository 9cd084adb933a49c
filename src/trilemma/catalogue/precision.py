"""A number format: which weights it stores in how many bits, and what the tensor cores multiply in."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a weight belongs to; precisions quantise by role."""

    ATTENTION = "attention"
    MLP = "mlp"
    SHARED_EXPERT = "shared_expert"
    EXPERT = "expert"
    ROUTER = "router"
    EMBEDDING = "embedding"
    HEAD = "head"
    NORM = "norm"
    VISION = "vision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """`bits_per_weight` (scales included) applies to the roles in `quantised`; every other role keeps 16 bits.

    `compute` is what the GEMMs of quantised roles multiply in where the accelerator can ("bf16", "fp8", "int8",
    "fp4"); `fallback_compute` what they run in where it cannot (weight-only: "bf16"); None: unsupported there.
    """

    name: str
    bits_per_weight: float
    quantised: frozenset[Role]
    compute: str
    fallback_compute: str | None
    kv_bytes_per_element: float
    note: str
    reference: str

    def bytes_per_weight(self, role: Role) -> float:
        """Stored bytes of one weight of `role`, scales included."""
        return self.bits_per_weight / 8 if role in self.quantised else 2.0

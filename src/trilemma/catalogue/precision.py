"""A number format: which weights it stores in how many bits, and what the tensor cores multiply in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
class FamilyRule:
    """What one accelerator family makes of a precision: a compute format, or None and the reason it does not run."""

    compute: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """`bits_per_weight` (scales included) applies to the roles in `quantised`; every other role keeps 16 bits.

    `compute` is what the GEMMs of quantised roles multiply in where the accelerator can ("bf16", "fp8", "int8",
    "fp4"); `fallback_compute` what they run in where it cannot (weight-only: "bf16"); None: unsupported there. `on`
    overrides both by accelerator family; `trilemma.catalogue.support.precision_on` applies all three.
    `quantised_dense` are the roles quantised in models without experts, where published checkpoints differ (None:
    the same); `for_model` picks.
    """

    name: str
    bits_per_weight: float
    quantised: frozenset[Role]
    compute: str
    fallback_compute: str | None
    kv_bytes_per_element: float
    note: str
    reference: str
    quantised_dense: frozenset[Role] | None = None
    on: Mapping[str, FamilyRule] = field(default_factory=dict)
    as_of: str = ""
    aliases: tuple[str, ...] = ()

    def bytes_per_weight(self, role: Role) -> float:
        """Stored bytes of one weight of `role`, scales included."""
        return self.bits_per_weight / 8 if role in self.quantised else 2.0

    def for_model(self, *, is_moe: bool) -> "Precision":
        """This precision as checkpoints of a MoE or a dense model carry it: NVFP4 leaves a MoE's attention alone.

        >>> roles = {"quantised": frozenset({Role.EXPERT}), "quantised_dense": frozenset({Role.ATTENTION, Role.MLP})}
        >>> four_bit = Precision(
        ...     name="x", bits_per_weight=4.5, **roles, compute="fp4", fallback_compute=None, kv_bytes_per_element=2,
        ...     note="", reference="",
        ... )
        >>> four_bit.for_model(is_moe=False).bytes_per_weight(Role.ATTENTION)
        0.5625
        """
        if is_moe or self.quantised_dense is None:
            return self
        return replace(self, quantised=self.quantised_dense)

"""Every weight tensor of a model: the one oracle for parameters, weight bytes and GEMM shapes.

Latency prices these matrices, memory stores them, cost never sees another count.
"""

from dataclasses import dataclass
from enum import StrEnum

from trilemma.catalogue.precision import Role


class Split(StrEnum):
    """How a tensor spreads over one pipeline stage's GPUs."""

    TENSOR = "tensor"  # over the attention TP group; every attention-DP rank holds a copy
    STAGE = "stage"  # dense MLP and shared experts: over all GPUs of the stage (TP x DP)
    EXPERT = "expert"  # experts over expert groups, each expert then over the GPUs of its group
    REPLICATED = "replicated"  # on every GPU of the stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """`copies` matrices of (`rows` in, `cols` out) in each of `layers` layers, all of one role.

    `copies` > 1 for routed experts, of which a token uses `used` (otherwise used = copies). `is_gemm` is False for
    tensors that are looked up or multiplied element by element (embedding, norms, biases, convolutions, decays).
    `in_block` is the index of the block in Model.blocks, or None outside the stack (embedding, head, final norm).
    `split_cap` caps the ways a TENSOR split really divides it (KV heads are copied once TP exceeds them; 0: no cap).
    """

    name: str
    role: Role
    split: Split
    rows: int
    cols: int
    layers: int
    copies: int = 1
    used: int = 1
    is_gemm: bool = True
    in_block: int | None = None
    split_cap: int = 0

    @property
    def params(self) -> int:
        """Parameters over all layers and copies."""
        return self.rows * self.cols * self.copies * self.layers

    @property
    def active_params(self) -> int:
        """Parameters one token uses."""
        return self.rows * self.cols * self.used * self.layers

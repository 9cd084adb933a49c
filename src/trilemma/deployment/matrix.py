"""One kind of weight matrix: its shape, how often it occurs, and how it spreads over GPUs."""

from dataclasses import dataclass
from enum import StrEnum

from trilemma.catalogue.precision import Role
from trilemma.deployment.spec import Parallelism


class Split(StrEnum):
    """How a tensor spreads over one pipeline stage's GPUs."""

    TENSOR = "tensor"  # over the attention TP group; every attention-DP rank holds a copy
    STAGE = "stage"  # dense MLP and shared experts: over all GPUs of the stage (TP x DP)
    EXPERT = "expert"  # experts over expert groups, each expert then over the GPUs of its group
    REPLICATED = "replicated"  # on every GPU of the stage


class SplitDim(StrEnum):
    """Which side of a (rows in, cols out) matrix is divided: decides the GEMM's shape per GPU."""

    COLS = "cols"  # column-parallel: every GPU sees the whole input and makes part of the output
    ROWS = "rows"  # row-parallel: every GPU sees part of the input; the outputs are summed by an all-reduce


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """`copies` matrices of (`rows` in, `cols` out) in each of `layers` layers, all of one role.

    `copies` > 1 for routed experts, of which a token uses `used` (otherwise used = copies). `is_gemm` is False for
    tensors that are looked up or multiplied element by element (embedding, norms, biases, convolutions, decays).
    `in_block` is the index of the block in Model.blocks, or None outside the stack (embedding, head, final norm, MTP
    layers). `split_dim` says which side is divided; REPLICATED tensors ignore it. `split_cap` caps the ways a split
    really divides the tensor (0: no cap). Of `cols`, the last `capped_cols` divide at most `capped_ways` ways (the KV
    heads inside a fused qkv are copied once TP exceeds them). `is_mtp` marks multi-token prediction layers.
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
    split_dim: SplitDim = SplitDim.COLS
    capped_cols: int = 0
    capped_ways: int = 0
    is_mtp: bool = False

    @property
    def params(self) -> int:
        """Parameters over all layers and copies."""
        return self.rows * self.cols * self.copies * self.layers

    @property
    def active_params(self) -> int:
        """Parameters one token uses."""
        return self.rows * self.cols * self.used * self.layers

    def ways(self, parallelism: Parallelism) -> int:
        """GPUs of one stage over which the tensor divides (its `capped_cols` may divide fewer ways)."""
        if self.split is Split.REPLICATED:
            return 1
        whole = parallelism.tensor if self.split is Split.TENSOR else parallelism.stage_gpus
        return min(whole, self.split_cap) if self.split_cap else whole

    def shape_per_gpu(self, parallelism: Parallelism) -> tuple[int, int, int]:
        """(rows, cols, copies) of the multiplication one GPU does, sides rounded up as engines pad them.

        >>> down = Matrix(name="down", role=Role.MLP, split=Split.STAGE, rows=28672, cols=8192, layers=80,
        ...               split_dim=SplitDim.ROWS)
        >>> down.shape_per_gpu(Parallelism(tensor=4))
        (7168, 8192, 1)
        """
        ways, copies = self.ways(parallelism), self.copies
        if self.split is Split.EXPERT:
            groups = min(parallelism.expert, ways)
            ways, copies = max(1, ways // groups), ceil_div(self.copies, groups)
        if self.split_dim is SplitDim.ROWS:
            return ceil_div(self.rows, ways), self.cols, copies
        capped = ceil_div(self.capped_cols, min(ways, self.capped_ways or ways))
        return self.rows, ceil_div(self.cols - self.capped_cols, ways) + capped, copies


def ceil_div(amount: int, ways: int) -> int:
    """`amount` shared `ways` ways, rounded up.

    >>> ceil_div(61, 4)
    16
    """
    return -(-amount // ways)

"""Time of each kind of operation on one GPU, by tokens: a roofline over kernels, arrays in and arrays out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.efficiency import Roofline

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES = 2  # activations between operations stay in BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds (n,) of an operation and the parts a roofline is made of: memory_s, compute_s, link_s and fixed_s."""

    seconds: FloatArray
    memory_s: FloatArray
    compute_s: FloatArray
    link_s: FloatArray
    fixed_s: FloatArray

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            seconds=self.seconds + other.seconds,
            memory_s=self.memory_s + other.memory_s,
            compute_s=self.compute_s + other.compute_s,
            link_s=self.link_s + other.link_s,
            fixed_s=self.fixed_s + other.fixed_s,
        )

    def scaled(self, factor: float) -> "Cost":
        """The same operation `factor` times as long."""
        return self.map(lambda part: part * factor)

    def map(self, change: Callable[[FloatArray], FloatArray]) -> "Cost":
        """The same change to every part."""
        return Cost(
            seconds=change(self.seconds),
            memory_s=change(self.memory_s),
            compute_s=change(self.compute_s),
            link_s=change(self.link_s),
            fixed_s=change(self.fixed_s),
        )

    @property
    def binds(self) -> str:
        """What takes most of the time summed over n: "HBM bandwidth", "FLOPs", "link" or "overhead"."""
        parts = {
            "HBM bandwidth": float(self.memory_s.sum()),
            "FLOPs": float(self.compute_s.sum()),
            "link": float(self.link_s.sum()),
            "overhead": float(self.fixed_s.sum()),
        }
        return max(parts, key=parts.__getitem__)


def nothing(n: int) -> Cost:
    """An operation that takes no time, n times."""
    zero = np.zeros(n)
    return Cost(seconds=zero, memory_s=zero, compute_s=zero, link_s=zero, fixed_s=zero)


def kernel(
    accelerator: Accelerator,
    roofline: Roofline,
    compute_format: str,
    *,
    read_bytes: FloatArray,
    flops: FloatArray,
    calls: float,
) -> Cost:
    """Time of `calls` kernels that move `read_bytes` (n,) and multiply `flops` (n,) each, in `compute_format`."""
    memory_s = read_bytes / (accelerator.hbm_bytes_per_s * roofline.memory)
    compute_s = flops / (accelerator.flops[compute_format] * roofline.compute)
    p = roofline.blend
    busy_s = (memory_s**p + compute_s**p) ** (1 / p)
    fixed_s = np.full_like(busy_s, roofline.fixed_s)
    return Cost(
        seconds=calls * (busy_s + fixed_s),
        memory_s=calls * memory_s,
        compute_s=calls * compute_s,
        link_s=np.zeros_like(busy_s),
        fixed_s=calls * fixed_s,
    )


def all_reduce(
    accelerator: Accelerator,
    roofline: Roofline,
    *,
    message_bytes: FloatArray,
    gpus: int,
    calls: float,
    network_share: float,
    network_s: float,
) -> Cost:
    """Time of `calls` all-reduces of `message_bytes` (n,) over `gpus` GPUs: each GPU sends and receives
    2 (g - 1) / g of the message; within a link domain at its share of link bandwidth, across domains at the network's.
    """
    if gpus <= 1 or calls == 0:
        return nothing(message_bytes.size)
    wire_bytes = message_bytes * 2 * (gpus - 1) / gpus
    if gpus <= accelerator.link_domain_gpus:
        link_s, fixed = wire_bytes / (accelerator.link_bytes_per_s * roofline.memory), roofline.fixed_s
    else:
        link_s, fixed = wire_bytes / (accelerator.network_bytes_per_s * network_share), network_s
    fixed_s = np.full_like(link_s, fixed)
    zero = np.zeros_like(link_s)
    return Cost(
        seconds=calls * (link_s + fixed_s),
        memory_s=zero,
        compute_s=zero,
        link_s=calls * link_s,
        fixed_s=calls * fixed_s,
    )


def touched_experts(tokens: FloatArray, experts: int, per_token: int) -> FloatArray:
    """Expected distinct experts that `tokens` (n,) tokens reach with even routing: E (1 - (1 - k/E)^T).

    >>> touched_experts(np.array([1.0, 1e6]), 128, 8).round(6).tolist()
    [8.0, 128.0]
    """
    return experts * (1 - (1 - per_token / experts) ** tokens)

"""Collectives over links: base times and features by message and GPUs, as `latency.attention` has them for attention.

Within one link domain a surface stretches the base (measured on 2, 4 and 8 GPUs, inside CUDA graphs; beyond, the ratio
of 8 GPUs to the formula stays). Where GPUs span domains the same call is done inside each and its share of the message
then crosses the network, at figures nobody measured here: NETWORK_SHARE and NETWORK_S are guesses, and the caller marks
the answer as one (`crosses_domains`).

| operation | what is in it | formats |
|---|---|---|
| all_reduce | the engine's own kernel for small messages, NCCL for large ones | bf16 |
| all_gather, reduce_scatter, all_to_all | NCCL; all engines alike | bf16 |
| dispatch_combine | tokens to their experts' GPUs and back, both kernels | low_latency (decode), normal (prefill) |
"""

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.surfaces import Surface
from trilemma.deployment.spec import Parallelism
from trilemma.latency.attention import KernelCall
from trilemma.latency.operations import Cost, FloatArray

LAUNCH_S = 3e-6  # an all-reduce of a few bytes over two GPUs: 2.4 to 7 us
EXCHANGE_LAUNCH_S = 2e-5  # a dispatch and a combine of one token: 20 to 45 us
NETWORK_SHARE = 0.7  # of the network's bandwidth
NETWORK_S = 3e-5  # latency of a collective between domains
LEAST_BYTES = 16.0


def crosses_domains(gpus: int, accelerator: Accelerator) -> bool:
    """Whether a collective over `gpus` GPUs leaves the fast links of one domain."""
    return gpus > accelerator.link_domain_gpus


def _call(
    operation: str,
    features: tuple[npt.ArrayLike, ...],
    *,
    link_s: FloatArray,
    network_s: FloatArray,
    launch_s: float,
) -> KernelCall:
    seconds = link_s + network_s + launch_s
    logs = np.broadcast_arrays(seconds, *(np.log2(np.asarray(f, np.float64)) for f in features))[1:]
    zero = np.zeros_like(seconds)
    return KernelCall(
        operation=operation,
        base=Cost(
            seconds=seconds,
            memory_s=zero,
            compute_s=zero,
            link_s=link_s + network_s,
            fixed_s=np.full_like(seconds, launch_s),
        ),
        features=tuple(logs),
    )


def _ring(
    operation: str, message_bytes: npt.ArrayLike, gpus: npt.ArrayLike, accelerator: Accelerator, *, passes: int
) -> KernelCall:
    """A ring that takes (g - 1) / g of the message past every GPU, `passes` times."""
    message, g = (np.asarray(x, np.float64) for x in np.broadcast_arrays(message_bytes, gpus))
    inside = np.minimum(g, accelerator.link_domain_gpus)
    domains = np.ceil(g / inside)
    link_s = passes * message * (inside - 1) / inside / accelerator.link_bytes_per_s
    crossing_bytes = passes * message / inside * (domains - 1) / domains
    network_s = crossing_bytes / (accelerator.network_bytes_per_s * NETWORK_SHARE) + NETWORK_S * (domains > 1)
    return _call(
        operation,
        (np.maximum(message, LEAST_BYTES), inside),
        link_s=link_s,
        network_s=network_s,
        launch_s=LAUNCH_S,
    )


def all_reduce(message_bytes: npt.ArrayLike, gpus: npt.ArrayLike, *, accelerator: Accelerator) -> KernelCall:
    """Sum of `message_bytes` (n,) over `gpus`, on every one of them: 2 (g - 1) / g of it over every link.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> call = all_reduce(2**20, 8, accelerator=load_catalogue().accelerator("h100_sxm"))
    >>> [round(float(call.base.seconds) * 1e6, 2), *(float(f) for f in call.features)]
    [7.08, 20.0, 3.0]
    """
    return _ring("all_reduce", message_bytes, gpus, accelerator, passes=2)


def all_reduce_s(
    message_bytes: npt.ArrayLike, gpus: npt.ArrayLike, *, accelerator: Accelerator, surface: Surface | None
) -> FloatArray:
    """Seconds (n,) of `all_reduce`; 0 on one GPU."""
    alone = np.asarray(gpus) <= 1
    return np.where(alone, 0.0, all_reduce(message_bytes, gpus, accelerator=accelerator).seconds(surface))


def all_gather(gathered_bytes: npt.ArrayLike, gpus: npt.ArrayLike, *, accelerator: Accelerator) -> KernelCall:
    """Every GPU's share to all: `gathered_bytes` (n,) is the whole, as it lies on each GPU afterwards."""
    return _ring("all_gather", gathered_bytes, gpus, accelerator, passes=1)


def reduce_scatter(message_bytes: npt.ArrayLike, gpus: npt.ArrayLike, *, accelerator: Accelerator) -> KernelCall:
    """Sum of `message_bytes` (n,) over `gpus`, each left with its share."""
    return _ring("reduce_scatter", message_bytes, gpus, accelerator, passes=1)


def all_to_all(message_bytes: npt.ArrayLike, gpus: npt.ArrayLike, *, accelerator: Accelerator) -> KernelCall:
    """Every GPU sends an equal part of its `message_bytes` (n,) to each; what leaves a domain crosses the network."""
    message, g = (np.asarray(x, np.float64) for x in np.broadcast_arrays(message_bytes, gpus))
    inside = np.minimum(g, accelerator.link_domain_gpus)
    outside_bytes = message * (g - inside) / g
    network_s = outside_bytes / (accelerator.network_bytes_per_s * NETWORK_SHARE) + NETWORK_S * (g > inside)
    return _call(
        "all_to_all",
        (np.maximum(message, LEAST_BYTES), inside),
        link_s=message * (inside - 1) / g / accelerator.link_bytes_per_s,
        network_s=network_s,
        launch_s=LAUNCH_S,
    )


def point_to_point(message_bytes: npt.ArrayLike, parallelism: Parallelism, accelerator: Accelerator) -> Cost:
    """`message_bytes` (n,) from one pipeline stage to the next, each GPU its share; over the network where the replica
    spans domains. No kernel is measured for it."""
    share = np.asarray(message_bytes, np.float64) / parallelism.tensor
    far = crosses_domains(parallelism.gpus, accelerator)
    bytes_per_s = accelerator.network_bytes_per_s * NETWORK_SHARE if far else accelerator.link_bytes_per_s
    link_s, fixed_s = share / bytes_per_s, np.full_like(share, NETWORK_S if far else LAUNCH_S)
    zero = np.zeros_like(share)
    return Cost(seconds=link_s + fixed_s, memory_s=zero, compute_s=zero, link_s=link_s, fixed_s=fixed_s)


def dispatch_combine(
    tokens: npt.ArrayLike,
    *,
    hidden: npt.ArrayLike,
    top_k: npt.ArrayLike,
    gpus: npt.ArrayLike,
    accelerator: Accelerator,
    low_latency: bool,
    dispatch_bytes_per_element: float = 1.0,
    combine_bytes_per_element: float = 2.0,
) -> KernelCall:
    """`tokens` (n,) of each GPU to the GPUs of their `top_k` experts, and the results back.

    Low latency sends a copy per expert; otherwise a GPU gets a token once: g (1 - (1 - 1/g)^k) copies on average.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> h100 = load_catalogue().accelerator("h100_sxm")
    >>> call = dispatch_combine(128, hidden=7168, top_k=8, gpus=8, accelerator=h100, low_latency=True)
    >>> round(float(call.base.seconds) * 1e6)  # 128 x 8 copies of 7,168 x 3 bytes, 7/8 of them to other GPUs
    63
    """
    n, wide, k, g = (np.asarray(x, np.float64) for x in np.broadcast_arrays(tokens, hidden, top_k, gpus))
    copies = k if low_latency else g * (1 - (1 - 1 / g) ** k)
    copy_bytes = wide * (dispatch_bytes_per_element + combine_bytes_per_element)
    inside = np.minimum(g, accelerator.link_domain_gpus)
    network_bytes = n * copies * copy_bytes * (g - inside) / g
    network_s = network_bytes / (accelerator.network_bytes_per_s * NETWORK_SHARE) + NETWORK_S * (g > inside)
    return _call(
        "dispatch_combine",
        (np.maximum(n, 1e-3), wide * k, inside),
        link_s=n * copies * copy_bytes * (inside - 1) / g / accelerator.link_bytes_per_s,
        network_s=network_s,
        launch_s=EXCHANGE_LAUNCH_S,
    )

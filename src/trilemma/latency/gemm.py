"""Base time of a dense GEMM: the data sheet's roofline plus one launch, before what kernels measured make of it.

y (m x n) = x (m x k) w^T (k x n): m tokens, n and k as they lie on one GPU after tensor parallelism. A surface of
`trilemma.catalogue.surfaces` multiplies it with measured / base, a function of `gemm_features`. Activations arrive in
BF16 and leave in BF16; where the format is narrower, the time holds their quantisation, as the measured kernels do.
"""

from dataclasses import dataclass

import numpy as np

from trilemma.catalogue.accelerator import Accelerator
from trilemma.errors import UnsupportedError
from trilemma.latency.operations import Cost, FloatArray

LAUNCH_S = 2e-6  # one kernel after another inside a CUDA graph: 1.5 to 2.5 us for the smallest BF16 GEMM measured
BLEND = 2.0  # between the sum (1) and the longer (infinity) of memory and compute time
OUTPUT_BYTES = 2.0
LEAST = 1e-3  # features of nothing (m = 0) stay finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a kernel stores and multiplies: bytes of a weight with its scales, bytes an activation moves before it is
    multiplied (2 read in BF16; quantised ones are written and read again), and the format of `Accelerator.flops`."""

    weight_bytes: float
    activation_bytes: float
    multiplies_in: str


# fp8: one scale per tensor, channel or token. Block scales of FP8 are 4 bytes per 128 x 128 weights: nothing. NVFP4 has
# a byte per 16, MXFP4 a byte per 32, INT4 two bytes per 128.
FORMS = {
    "bf16": Form(weight_bytes=2.0, activation_bytes=2.0, multiplies_in="bf16"),
    "fp8": Form(weight_bytes=1.0, activation_bytes=4.0, multiplies_in="fp8"),
    "fp8_block": Form(weight_bytes=1.0, activation_bytes=4.0, multiplies_in="fp8"),
    "nvfp4": Form(weight_bytes=0.5625, activation_bytes=3.125, multiplies_in="fp4"),
    "int8": Form(weight_bytes=1.0, activation_bytes=4.0, multiplies_in="int8"),
    "w8a16": Form(weight_bytes=1.0, activation_bytes=2.0, multiplies_in="bf16"),
    "w4a16": Form(weight_bytes=0.516, activation_bytes=2.0, multiplies_in="bf16"),
    "mxfp4_w4a16": Form(weight_bytes=0.53125, activation_bytes=2.0, multiplies_in="bf16"),
    "mxfp4_w4a8": Form(weight_bytes=0.53125, activation_bytes=4.0, multiplies_in="fp8"),
}


def form_of(name: str, accelerator: Accelerator) -> tuple[Form, float]:
    """The row of FORMS and the accelerator's peak in it, FLOP/s; UnsupportedError where either does not exist."""
    if name not in FORMS:
        raise UnsupportedError(f"no kernel format {name!r}: one of {', '.join(FORMS)}")
    form = FORMS[name]
    peak = accelerator.flops.get(form.multiplies_in)
    if peak is None:
        raise UnsupportedError(f"{accelerator.name} does not multiply in {form.multiplies_in}, which {name} kernels do")
    return form, peak


def roofline(memory_s: FloatArray, compute_s: FloatArray, *, launch_s: float) -> Cost:
    """Memory and compute time (n,) overlapped by the BLEND norm, and a launch: a Cost whose parts say what binds."""
    busy_s = (memory_s**BLEND + compute_s**BLEND) ** (1 / BLEND)
    return Cost(
        seconds=busy_s + launch_s,
        memory_s=memory_s,
        compute_s=compute_s,
        link_s=np.zeros_like(busy_s),
        fixed_s=np.full_like(busy_s, launch_s),
    )


def gemm_cost(
    m: FloatArray, n: FloatArray | float, k: FloatArray | float, *, accelerator: Accelerator, form: str
) -> Cost:
    """Base time of one GEMM of m (n,) tokens and its parts; n and k broadcast. UnsupportedError as `form_of`.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> h100 = load_catalogue().accelerator("h100_sxm")
    >>> cost = gemm_cost(np.array([1.0, 16384.0]), 8192, 8192, accelerator=h100, form="bf16")
    >>> (cost.seconds * 1e6).round().tolist()  # the data sheet: 134 MB at 3.35 TB/s, 2.2 TFLOP at 989 TFLOP/s
    [42.0, 2234.0]
    """
    row, peak = form_of(form, accelerator)
    m, n, k = np.broadcast_arrays(np.asarray(m, np.float64), np.asarray(n, np.float64), np.asarray(k, np.float64))
    moved_bytes = n * k * row.weight_bytes + m * k * row.activation_bytes + m * n * OUTPUT_BYTES
    return roofline(moved_bytes / accelerator.hbm_bytes_per_s, 2 * m * n * k / peak, launch_s=LAUNCH_S)


def gemm_base_s(
    m: FloatArray, n: FloatArray | float, k: FloatArray | float, *, accelerator: Accelerator, form: str
) -> FloatArray:
    """Seconds (n,) of `gemm_cost`."""
    return gemm_cost(m, n, k, accelerator=accelerator, form=form).seconds


def gemm_features(
    m: FloatArray, n: FloatArray | float, k: FloatArray | float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """log2 of (m, n, k): the dimensions of the surfaces named "gemm".

    >>> [float(f) for f in gemm_features(1024.0, 8192.0, 4096.0)]
    [10.0, 13.0, 12.0]
    """
    m, n, k = (np.log2(np.maximum(np.asarray(x, np.float64), LEAST)) for x in (m, n, k))
    return m, n, k

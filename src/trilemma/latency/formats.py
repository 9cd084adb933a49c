"""Which number format a precision multiplies in on an accelerator, and which measured kernels that means."""

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.model import Model
from trilemma.catalogue.precision import Precision, Role
from trilemma.catalogue.support import precision_on
from trilemma.errors import UnsupportedError

FOUR_BITS = 6.0  # bits per weight, scales included, below which a format counts as four bits
EIGHT_BITS = 12.0


def compute_format(precision: Precision, accelerator: Accelerator) -> str:
    """The format of quantised GEMMs; UnsupportedError with the reason where the precision does not run."""
    support = precision_on(precision, accelerator)
    if support.compute is None:
        raise UnsupportedError(f"{precision.name} does not run on {accelerator.name}: {support.reason}")
    return support.compute


def kernel_form(precision: Precision, role: Role, model: Model, accelerator: Accelerator) -> str:
    """The form of latency.gemm.FORMS in which matrices of `role` are multiplied.

    FP8 checkpoints of MoE models, and those published in FP8 only, carry 128 x 128 block scales (DeepSeek-V3, MiniMax,
    Qwen3); others one scale per tensor or channel.
    """
    name = compute_format(precision, accelerator)
    if role not in precision.quantised:
        return "bf16"
    bits = precision.bits_per_weight
    if bits < FOUR_BITS:
        mx = "mxfp4_" if precision.name == "mxfp4" else ""
        return {"bf16": f"{mx}w4a16", "fp8": "mxfp4_w4a8", "int8": "int8"}.get(name, "nvfp4")
    if bits < EIGHT_BITS:
        if name == "fp8":
            return "fp8_block" if model.is_moe or model.precision == "fp8" else "fp8"
        return {"bf16": "w8a16"}.get(name, name)
    return "bf16"

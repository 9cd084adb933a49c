"""Which number format a precision multiplies in on an accelerator."""

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.precision import Precision
from trilemma.catalogue.support import precision_on
from trilemma.errors import UnsupportedError


def compute_format(precision: Precision, accelerator: Accelerator) -> str:
    """The format of quantised GEMMs; UnsupportedError with the reason where the precision does not run."""
    support = precision_on(precision, accelerator)
    if support.compute is None:
        raise UnsupportedError(f"{precision.name} does not run on {accelerator.name}: {support.reason}")
    return support.compute


def expert_format(precision: Precision, accelerator: Accelerator) -> str:
    """The row of expert kernels: as compute_format, with 4-bit weights under wider activations told apart."""
    name = compute_format(precision, accelerator)
    if precision.bits_per_weight < 6:
        return {"bf16": "w4a16", "fp8": "w4a8"}.get(name, name)
    return name

"""What an accelerator makes of a number format: the format its GEMMs multiply in, or why it does not run."""

from dataclasses import dataclass

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """`compute` is a format of `Accelerator.flops`, None where the precision does not run; `reason` says why.

    `native` is False where weights are only stored in the format and GEMMs run in a wider one.
    """

    compute: str | None
    native: bool
    reason: str


def precision_on(precision: Precision, accelerator: Accelerator) -> Support:
    """What the GEMMs of the quantised roles run in on this accelerator.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> rows = load_catalogue()
    >>> precision_on(rows.precision("fp8"), rows.accelerator("h100")).compute
    'fp8'
    >>> precision_on(rows.precision("fp8"), rows.accelerator("a100"))
    Support(compute='bf16', native=False, reason='ampere has no fp8 units: weights in fp8, GEMMs in bf16')
    >>> precision_on(rows.precision("nvfp4"), rows.accelerator("mi355x")).compute is None
    True
    """
    rule = precision.on.get(accelerator.family)
    if rule is not None:
        if rule.compute is None or rule.compute not in accelerator.flops:
            return Support(compute=None, native=False, reason=rule.reason)
        return Support(compute=rule.compute, native=rule.compute == precision.compute, reason=rule.reason)
    if precision.compute in accelerator.flops:
        return Support(compute=precision.compute, native=True, reason="")
    lacking = f"{accelerator.family} has no {precision.compute} units"
    fallback = precision.fallback_compute
    if fallback is None or fallback not in accelerator.flops:
        return Support(compute=None, native=False, reason=lacking)
    return Support(
        compute=fallback, native=False, reason=f"{lacking}: weights in {precision.name}, GEMMs in {fallback}"
    )

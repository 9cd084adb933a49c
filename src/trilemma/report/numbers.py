"""Numbers as documents hold them."""

from math import isfinite


def finite(value: float | None) -> float | None:
    """`value`, or None where it is infinite or NaN, which JSON does not know: a request that never ended.

    >>> finite(1.5), finite(float("inf")), finite(None)
    (1.5, None, None)
    """
    return value if value is not None and isfinite(value) else None

"""How far a prediction may be off: intervals and safe values from the spread of measured over predicted."""

from dataclasses import dataclass
from statistics import NormalDist

from trilemma.catalogue.figure import Source

HIGH_QUANTILE = 0.9  # the spreads are 10% and 90% quantiles
TRANSFER_POWER = 2.0  # beyond measured accelerators: twice as wide in the logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median with an 80% interval."""

    value: float
    low: float
    high: float

    def at(self, confidence: float) -> float:
        """The value that is not exceeded with probability `confidence`, log-normal on either side of the median.

        >>> Estimate(value=1.0, low=0.8, high=1.25).at(0.9)
        1.25
        """
        z = NormalDist().inv_cdf(confidence) / NormalDist().inv_cdf(HIGH_QUANTILE)
        ratio = self.high / self.value if z >= 0 else self.value / self.low
        return float(self.value * ratio**z)


def around(value: float, spread: tuple[float, float], source: Source) -> Estimate:
    """The interval around `value`; wider where the constants behind it were carried over from a relative."""
    power = 1.0 if source <= Source.FITTED else TRANSFER_POWER
    return Estimate(value=value, low=value * min(1.0, spread[0]) ** power, high=value * max(1.0, spread[1]) ** power)


def margin(spread: tuple[float, float], source: Source, confidence: float) -> float:
    """By what a prediction is multiplied so that it is not exceeded with probability `confidence`.

    >>> round(margin((0.8, 1.25), Source.FITTED, 0.8), 3), margin((0.8, 1.25), Source.FITTED, 0.5)
    (1.158, 1.0)
    """
    return around(1.0, spread, source).at(confidence)

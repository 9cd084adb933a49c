"""How far a prediction may be off: intervals and safe values around a simulated number."""

from dataclasses import dataclass
from math import exp, hypot
from statistics import NormalDist

from trilemma.catalogue.figure import Source

HIGH_QUANTILE = 0.9  # intervals hold 80%: from the 10% to the 90% quantile
# Doubt of the logarithm where step times rest on more than measured kernels of the accelerator itself.
DOUBT = {Source.DERIVED: 0.10, Source.VENDOR: 0.15, Source.GUESS: 0.25}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """What is known of log(measured / simulated): its mean and standard deviation, and between which multiples of the
    deviation (below and above the mean) 80% of the measured runs left out have lain."""

    mean: float
    deviation: float
    quantiles: tuple[float, float]

    def doubted(self, source: Source) -> "Error":
        """The same with the doubt that comes with a weaker source."""
        return Error(mean=self.mean, deviation=hypot(self.deviation, DOUBT.get(source, 0.0)), quantiles=self.quantiles)

    def around(self, simulated: float) -> Estimate:
        """The estimate that a simulated number leads to.

        >>> Error(mean=0.0, deviation=0.1, quantiles=(-1.0, 2.0)).around(10.0)
        Estimate(value=10.0, low=9.048374180359595, high=12.214027581601698)
        """
        value = simulated * exp(self.mean)
        low, high = self.quantiles
        return Estimate(value=value, low=value * exp(low * self.deviation), high=value * exp(high * self.deviation))

    def margin(self, confidence: float) -> float:
        """By what an estimate is multiplied so that it is not exceeded with probability `confidence`.

        >>> error = Error(mean=0.3, deviation=0.1, quantiles=(-1.0, 2.0))
        >>> error.margin(0.5), round(error.margin(0.9), 3)
        (1.0, 1.221)
        """
        return Error(mean=0.0, deviation=self.deviation, quantiles=self.quantiles).around(1.0).at(confidence)

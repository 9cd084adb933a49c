"""The money around the hardware that a scenario may override: the fields of the catalogue's Economics."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, create_model, model_validator

from trilemma.catalogue.economics import Economics
from trilemma.scenario.fields import Share, Strict, Word, problem

ABOVE_ZERO = {"horizon_months", "model_life_months"}  # divisors: nothing is paid off in no time
AT_LEAST_ONE = {"pue"}  # a facility draws at least what its servers draw
CURRENCY = "^[A-Z]{3}$"


class Overrides(Strict):
    """Values that replace the catalogue's economics; a key left out keeps its default."""

    grid_region: Word | None = None
    """A region of `trilemma catalogue grid`, in place of grid_gco2_per_kwh."""
    exchange_rates: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None, json_schema_extra={"propertyNames": {"pattern": CURRENCY}, "examples": [{"EUR": 1.08}]}
    )
    """US dollars per unit of a currency that the catalogue's files have prices in."""

    @model_validator(mode="after")
    def _at_most_the_whole(self) -> "Overrides":
        if self.given().get("residual_share", 0.0) > 1:
            raise problem("a residual of at most 100%", "more", key="residual_share")
        return self

    @model_validator(mode="after")
    def _one_grid(self) -> "Overrides":
        if self.grid_region is not None and "grid_gco2_per_kwh" in self.given():
            raise problem("a region or grid_gco2_per_kwh", "both", key="grid_region", hint="leave one of them out")
        return self

    @model_validator(mode="after")
    def _currencies(self) -> "Overrides":
        for code in self.rates():
            if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()) or code == "USD":
                raise problem("a currency such as EUR, other than USD", repr(code), key=("exchange_rates", code))
        return self

    def given(self) -> dict[str, float]:
        """Field of Economics to its new value, those given as numbers only."""
        plain = self.model_dump(exclude_none=True, exclude={"grid_region", "exchange_rates"})
        return {name: float(value) for name, value in plain.items()}

    def rates(self) -> Mapping[str, float]:
        """US dollars per unit of each currency given."""
        return self.exchange_rates or {}


def _field(name: str) -> tuple[object, None]:
    """The type of one override: shares take "9%", the rest plain numbers in the unit their name says."""
    if any(word in name for word in ("share", "rate", "uplift")):
        return (Share | None, None)
    bound = Field(gt=0) if name in ABOVE_ZERO else Field(ge=1 if name in AT_LEAST_ONE else 0)
    return (Annotated[float, bound] | None, None)


if TYPE_CHECKING:

    class EconomicsOverrides(Overrides):
        """What the created model looks like to a type checker."""

else:
    EconomicsOverrides = create_model(
        "EconomicsOverrides",
        __base__=Overrides,
        __doc__=Overrides.__doc__,
        **{
            field.name: _field(field.name)
            for field in fields(Economics)
            if field.name not in {"figures", "exchange_rates"}
        },
    )

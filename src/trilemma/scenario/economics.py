"""The money around the hardware that a scenario may override: exactly the fields of the catalogue's Economics."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, create_model, model_validator

from trilemma.catalogue.economics import Economics
from trilemma.scenario.fields import Share, Strict, problem

ABOVE_ZERO = {"horizon_months", "model_life_months"}  # divisors: nothing is paid off in no time
AT_LEAST_ONE = {"pue"}  # a facility draws at least what its servers draw


class Overrides(Strict):
    """Values that replace the catalogue's economics; a key left out keeps its default."""

    @model_validator(mode="after")
    def _at_most_the_whole(self) -> "Overrides":
        if self.given().get("residual_share", 0.0) > 1:
            raise problem("a residual of at most 100%", "more", key="residual_share")
        return self

    def given(self) -> dict[str, float]:
        """Field of Economics to its new value, those given only."""
        return {name: float(value) for name, value in self.model_dump(exclude_none=True).items()}


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
        **{field.name: _field(field.name) for field in fields(Economics) if field.name != "figures"},
    )

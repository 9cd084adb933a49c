"""The kinds of value a scenario holds: durations, rates, shares, limits, dates; each checked where it stands.

Texts with units stay texts, so that the resolved scenario reads as its author wrote it; the models give the parsed
numbers as properties named with their unit.
"""

import re
from collections.abc import Callable
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from trilemma.errors import InputError
from trilemma.units import parse_rate_per_s, parse_share, parse_time_s

NUMBER_THEN = r"^\s*\+?[0-9.][0-9_,.eE+-]*\s*"


class Strict(BaseModel):
    """A mapping with known keys only, no conversions, no NaN, and never changed after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def problem(
    expected: str, found: str, *, key: str | int | tuple[str | int, ...] = (), hint: str = ""
) -> PydanticCustomError:
    """An error for a validator to raise; `key` is the offending key or the path to it, from the model being checked."""
    context = {"expected": expected, "found": found, "key": key if isinstance(key, tuple) else (key,), "hint": hint}
    return PydanticCustomError("trilemma", "expected {expected}, found {found}", context)


def checking(parse: Callable[[object], object]) -> Callable[[object], object]:
    """A validator that keeps the value and turns the InputError of `parse` into a problem at the value's place."""

    def check(value: object) -> object:
        parsed(parse, value)
        return value

    return check


def parsed(parse: Callable[[object], object], value: object) -> object:
    """`parse(value)`, its InputError turned into a problem at the value's place."""
    try:
        return parse(value)
    except InputError as error:
        raise problem(error.expected, error.found, hint=error.hint) from None


def made(make: Callable[[], object], *, prefix: str) -> None:
    """Calls `make`, which builds another room's value; its InputError, whose place starts with `prefix`, as a problem
    at that place inside the model being checked."""
    try:
        make()
    except InputError as error:
        inside = error.where.removeprefix(prefix)
        key = tuple(int(number) if number else word for number, word in re.findall(r"\[(\d+)\]|(\w+)", inside))
        raise problem(error.expected, error.found, key=key, hint=error.hint) from None


def _unit_text(value: object) -> object:
    """A bare number as text, so that the unit parser can say that the unit is missing."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _share(value: object) -> float:
    """A share from "25%" or 0.25; a bare number above 1 is taken for forgotten percent, "150%" says what it means."""
    share = parse_share(value, where="")
    if share > 1 and not (isinstance(value, str) and value.strip().endswith("%")):
        raise InputError("", expected="a share such as '25%' or 0.25", found=repr(value), hint=f"write '{value}%'")
    return share


def _check_date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise problem("a date such as 2026-11-01", repr(text)) from None
    return text


def _check_limit(text: object) -> object:
    from trilemma.metrics.limits import parse_limit

    return parse_limit(text, where="")


def entries(value: object) -> object:
    """YAML lists as the tuples frozen models hold; one word alone is refused, not split into letters."""
    return tuple(value) if isinstance(value, list) else value


def _each_once(values: tuple[object, ...]) -> tuple[object, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise problem("each entry once", f"{value!r} again", key=index)
    return values


Duration = Annotated[
    str,
    BeforeValidator(checking(lambda value: parse_time_s(_unit_text(value), where=""))),
    WithJsonSchema(
        {"type": "string", "pattern": NUMBER_THEN + "[A-Za-zµ]+\\s*$", "examples": ["500 ms", "90 s", "1 h"]}
    ),
]
Rate = Annotated[
    str,
    BeforeValidator(checking(lambda value: parse_rate_per_s(_unit_text(value), where=""))),
    WithJsonSchema(
        {"type": "string", "pattern": NUMBER_THEN + "[A-Za-z]+(/[A-Za-z]+)?\\s*$", "examples": ["12 req/s"]}
    ),
]
Share = Annotated[
    float,
    BeforeValidator(lambda value: parsed(_share, value)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": NUMBER_THEN + "%?\\s*$"},
            ],
            "examples": ["25%", 0.25],
        }
    ),
]
LimitText = Annotated[
    str,
    BeforeValidator(checking(_check_limit)),
    WithJsonSchema({"type": "string", "examples": ["ttft p99 <= 1 s", "goodput >= 95%", "deadline <= 6 h"]}),
]
IsoDate = Annotated[str, AfterValidator(_check_date), Field(json_schema_extra={"format": "date"})]
Word = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1), BeforeValidator(entries)]
Limits = Annotated[tuple[LimitText, ...], BeforeValidator(entries)]
Multipliers = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(entries)]
Words = Annotated[tuple[Word, ...], Field(min_length=1), BeforeValidator(entries), AfterValidator(_each_once)]
Switches = Annotated[tuple[bool, ...], Field(min_length=1), BeforeValidator(entries), AfterValidator(_each_once)]
Choices = Annotated[tuple[Count, ...], Field(min_length=1), BeforeValidator(entries), AfterValidator(_each_once)]

"""One row of a catalogue file, read key by key: a wrong value names file and key, a key nobody reads is an error."""

import math
from collections.abc import Collection, Mapping

from trilemma.catalogue.dates import day_of
from trilemma.catalogue.figure import Figure, Source
from trilemma.errors import InputError

SOURCES = {source.label: source for source in Source}
DOLLARS = "USD"


def is_currency(code: str) -> bool:
    """Whether a text is a currency code: three capital letters.

    >>> is_currency("EUR"), is_currency("euro")
    (True, False)
    """
    return len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()


class Row:
    """A table of a file. Read every key through the methods, then call `end`, which refuses what was not read.

    `where` names file and row in errors, as in "my.toml: accelerators.x"; `joint` stands between it and a key.

    >>> row = Row({"name": "x", "tdp_w": -1}, "my.toml: accelerators.x")
    >>> row.number("tdp_w")
    Traceback (most recent call last):
    ...
    trilemma.errors.InputError: my.toml: accelerators.x.tdp_w: expected a number of at least 0, found -1
    """

    __slots__ = ("_joint", "_read", "_values", "where")

    def __init__(self, values: object, where: str, *, joint: str = ".") -> None:
        if not isinstance(values, Mapping):
            raise InputError(where, expected="a table", found=repr(values))
        self._values, self.where, self._joint = values, where, joint
        self._read: set[str] = set()

    def place(self, key: str) -> str:
        """File, row and key, for an error."""
        return f"{self.where}{self._joint}{key}"

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def get(self, key: str, expected: str) -> object:
        """The value of a key that must be there; `expected` says what it is to be."""
        self._read.add(key)
        if key not in self._values:
            raise InputError(self.place(key), expected=expected, found="nothing")
        return self._values[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty; `default` where the key is absent."""
        self._read.add(key)
        if default is not None and key not in self._values:
            return default
        value = self.get(key, "a text")
        if not isinstance(value, str) or not value.strip():
            raise InputError(self.place(key), expected="a text that is not empty", found=repr(value))
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where the key is absent."""
        self._read.add(key)
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise InputError(self.place(key), expected="a list of texts", found=repr(value))
        return tuple(value)

    def word(self, key: str, words: Collection[str], default: str | None = None) -> str:
        """A text that is one of `words`."""
        value = self.text(key, default)
        if value not in words:
            raise InputError(self.place(key), expected=f"one of {', '.join(words)}", found=repr(value))
        return value

    def number(self, key: str, default: float | None = None, *, above_zero: bool = False) -> float:
        """A finite number of at least 0, or above 0; `default` where the key is absent."""
        self._read.add(key)
        if default is not None and key not in self._values:
            return default
        expected = "a number above 0" if above_zero else "a number of at least 0"
        value = self.get(key, expected)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(self.place(key), expected=expected, found=repr(value))
        if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
            raise InputError(self.place(key), expected=expected, found=repr(value))
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1; `default` where the key is absent."""
        number = self.number(key, default)
        if number < 1 or number != int(number):
            raise InputError(self.place(key), expected="a whole number of at least 1", found=repr(self._values[key]))
        return int(number)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false; `default` where the key is absent."""
        self._read.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise InputError(self.place(key), expected="true or false", found=repr(value))
        return value

    def table(self, key: str) -> "Row":
        """A table below this one."""
        return Row(self.get(key, "a table"), self.place(key))

    def tables(self, key: str) -> dict[str, "Row"]:
        """Named tables below a key; empty where it is absent."""
        self._read.add(key)
        if key not in self._values:
            return {}
        below = self.table(key)
        return {name: Row(values, below.place(name)) for name, values in below._values.items()}

    def entries(self, key: str) -> tuple["Row", ...]:
        """A list of tables that is not empty."""
        value = self.get(key, "a list of tables")
        if not isinstance(value, list) or not value:
            raise InputError(self.place(key), expected="a list of tables that is not empty", found=repr(value))
        return tuple(Row(item, f"{self.place(key)}[{index}]") for index, item in enumerate(value))

    def day(self, key: str) -> str:
        """An ISO date, as written."""
        text = self.text(key)
        day_of(text, where=self.place(key))
        return text

    def figure(self, key: str, *, above_zero: bool = False) -> Figure:
        """A number with its provenance: value, low and high (the value where absent), source, as_of, reference."""
        self._read.add(key)
        if isinstance(self._values.get(key), int | float):
            self.number(key, above_zero=above_zero)
            raise InputError(
                self.place(key), expected="a table of value, source, as_of and reference",
                found=f"the number {self._values[key]!r}", hint="every number says where it comes from",
            )  # fmt: skip
        below = self.table(key)
        figure = below.sourced("value", "low", "high", above_zero=above_zero)
        below.end()
        return figure

    def figures(self, key: str, *, above_zero: bool = False) -> dict[str, Figure]:
        """Named figures below a key; empty where it is absent."""
        self._read.add(key)
        if key not in self._values:
            return {}
        below = self.table(key)
        return {name: below.figure(name, above_zero=above_zero) for name in below._values}

    def sourced(self, value: str, low: str, high: str, *, above_zero: bool = True) -> Figure:
        """The figure spread over keys of this row: a value, its bounds, and source, as_of, reference."""
        number = self.number(value, above_zero=above_zero)
        bounds = self.number(low, number), self.number(high, number)
        if not bounds[0] <= number <= bounds[1]:
            raise InputError(
                self.place(value), expected=f"{low} <= {value} <= {high}",
                found=f"{bounds[0]:g}, {number:g}, {bounds[1]:g}",
            )  # fmt: skip
        return Figure(
            value=number,
            low=bounds[0],
            high=bounds[1],
            source=SOURCES[self.word("source", SOURCES)],
            as_of=self.day("as_of"),
            reference=self.text("reference"),
        )

    def currency(self) -> str:
        """The money of the row's prices, a code of three letters; US dollars where nothing is said."""
        code = self.text("currency", DOLLARS)
        if not is_currency(code):
            raise InputError(self.place("currency"), expected="a currency such as EUR", found=repr(code))
        return code

    def end(self) -> None:
        """Refuses keys that nothing has read."""
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            raise InputError(
                self.place(unknown[0]), expected="a known key", found=repr(unknown[0]),
                hint=f"keys here: {', '.join(sorted(self._read))}",
            )  # fmt: skip

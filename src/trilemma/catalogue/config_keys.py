"""Strict reading of single keys of a config.json: what is missing or of the wrong type is named, never guessed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilemma.errors import InputError

MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Keys:
    """A JSON object with the place it was read from; `where` opens every error message."""

    values: Mapping[str, Any]
    where: str

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def count(self, *names: str, default: int | None = None) -> int:
        """A positive integer under the first of `names` present; `default` where none is (None: an error).

        >>> Keys({"num_hidden_layers": 80}, "config.json").count("num_hidden_layers")
        80
        """
        return self._integer(names, default, least=1)

    def layers(self) -> int:
        """num_hidden_layers, of which no model has more than a few hundred: a wrong one must not fill memory."""
        count = self.count("num_hidden_layers")
        if count > MOST_LAYERS:
            place = f"{self.where}: num_hidden_layers"
            raise InputError(place, expected=f"at most {MOST_LAYERS} layers", found=str(count))
        return count

    def whole(self, *names: str, default: int = 0) -> int:
        """A non-negative integer under the first of `names` present, else `default`."""
        return self._integer(names, default, least=0)

    def _integer(self, names: tuple[str, ...], default: int | None, *, least: int) -> int:
        expected = "a positive integer" if least else "a non-negative integer"
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            if isinstance(value, bool) or not whole or value < least:
                raise InputError(f"{self.where}: {name}", expected=expected, found=repr(value))
            return int(value)
        if default is None:
            raise InputError(f"{self.where}: {names[0]}", expected=expected, found="no such key")
        return default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean (null counts as absent)."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: {name}", expected="true or false", found=repr(value))
        return value

    def text(self, name: str, default: str = "") -> str:
        """A string (null counts as absent)."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InputError(f"{self.where}: {name}", expected="a string", found=repr(value))
        return value

    def items(self, name: str, *, length: int | None = None) -> list[Any] | None:
        """A list, of at least `length` entries and cut to them; None where absent or not a list (a scalar spelling)."""
        value = self.values.get(name)
        if not isinstance(value, list):
            return None
        if length is not None and len(value) < length:
            raise InputError(f"{self.where}: {name}", expected=f"{length} entries", found=f"{len(value)}")
        return value if length is None else value[:length]

    def inner(self, name: str) -> "Keys | None":
        """A nested object, its key added to `where`; None where absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise InputError(f"{self.where}: {name}", expected="an object", found=repr(value)[:60])
        return Keys(value, f"{self.where}: {name}")

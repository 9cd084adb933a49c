"""The words of a JSON Schema: objects that are closed, values that may be null, each with a sentence."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def text(description: str = "", *, choices: tuple[str, ...] = ()) -> Schema:
    """A string; one of `choices` where there are any."""
    return said({"type": "string"} | ({"enum": list(choices)} if choices else {}), description)


def number(description: str = "", **bounds: float) -> Schema:
    """A number, `bounds` as JSON Schema spells them."""
    return said({"type": "number", **bounds}, description)


def amount(description: str = "") -> Schema:
    """A number of at least 0."""
    return number(description, minimum=0)


def count(description: str = "", *, least: int = 0) -> Schema:
    """A whole number of at least `least`."""
    return said({"type": "integer", "minimum": least}, description)


def array(of: Schema, description: str = "") -> Schema:
    """A list of one kind of thing."""
    return said({"type": "array", "items": of}, description)


def closed(keys: Mapping[str, Schema], description: str = "") -> Schema:
    """All of `keys` and no other."""
    whole = {"type": "object", "properties": dict(keys), "required": list(keys), "additionalProperties": False}
    return said(whole, description)


def or_null(schema: Schema, description: str = "") -> Schema:
    """The same or null."""
    if set(schema) <= {"type", "minimum", "description"} and isinstance(schema["type"], str):
        return said(schema | {"type": [schema["type"], "null"]}, description)
    return said({"anyOf": [schema, {"type": "null"}]}, description)


def ref(name: str) -> Schema:
    """A definition of the schema by its name."""
    return {"$ref": f"#/$defs/{name}"}


def said(schema: Schema, description: str) -> Schema:
    """A schema with a sentence about it, if there is one."""
    return schema | ({"description": description} if description else {})

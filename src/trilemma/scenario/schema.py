"""The scenario's JSON Schema, for editors and for those who write scenarios by program."""

import ast
import inspect
import json
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from trilemma.scenario.fields import Strict
from trilemma.scenario.model import Scenario


class _Described(GenerateJsonSchema):
    """Describes each key by the docstring below its field, and leaves out its title, which only repeats it. pydantic
    can read docstrings itself, but then does so wherever scenarios are read, which takes as long as to read one."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's own signature
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:  # noqa: ANN401
        """A mapping's schema with its keys described."""
        found = super().model_schema(schema)
        model = schema["cls"]
        for name, text in _docstrings(model).items():
            key = model.model_fields[name].alias or name if name in model.model_fields else name
            if key in found.get("properties", {}):
                found["properties"][key].setdefault("description", text)
        return found


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each field of a model in its source, or in that of the models it is made from."""
    found = {}
    for part in reversed(model.__mro__):
        if issubclass(part, Strict) and (tree := _tree(part)) is not None:
            for field, below in zip(tree.body, tree.body[1:], strict=False):
                named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id
                if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    found[named] = inspect.cleandoc(str(below.value.value))
    return found


def _tree(part: type[BaseModel]) -> ast.ClassDef | None:
    """A class as it is written; None for one that a function made."""
    try:
        found = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
    except OSError:
        return None
    return found if isinstance(found, ast.ClassDef) else None


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a scenario file. What needs arithmetic, such as min <= max, is checked on reading.

    >>> scenario_schema()["title"], scenario_schema()["additionalProperties"]
    ('trilemma scenario', False)
    """
    schema = Scenario.model_json_schema(mode="validation", schema_generator=_Described)
    schema["required"] = [key for key in schema["required"] if key != "name"]  # the file's name stands in
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "trilemma scenario"}


def schema_text() -> str:
    """The schema as the file docs/scenario.schema.json holds it."""
    return json.dumps(scenario_schema(), indent=2, ensure_ascii=False) + "\n"

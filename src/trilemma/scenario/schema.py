"""The scenario's JSON Schema, for editors and for those who write scenarios by program."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from trilemma.scenario.model import Scenario


class _Untitled(GenerateJsonSchema):
    """Leaves out the title of each key, which only repeats it."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's own signature
        return False


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a scenario file. What needs arithmetic, such as min <= max, is checked on reading.

    >>> scenario_schema()["title"], scenario_schema()["additionalProperties"]
    ('trilemma scenario', False)
    """
    schema = Scenario.model_json_schema(mode="validation", schema_generator=_Untitled)
    schema["required"] = [key for key in schema["required"] if key != "name"]  # the file's name stands in
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "trilemma scenario"}


def schema_text() -> str:
    """The schema as the file docs/scenario.schema.json holds it."""
    return json.dumps(scenario_schema(), indent=2, ensure_ascii=False) + "\n"

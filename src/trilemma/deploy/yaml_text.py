"""Documents as YAML: keys in the order they were written, the same text every time."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Plain(yaml.SafeDumper):
    """Repeats equal parts instead of pointing back at them, and sets texts of several lines as blocks."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Lists stand indented under their key."""
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def yaml_text(document: Mapping[str, Any]) -> str:
    """One document."""
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def yaml_texts(documents: Sequence[Mapping[str, Any]]) -> str:
    """Several documents of one file."""
    return "---\n".join(yaml_text(document) for document in documents)

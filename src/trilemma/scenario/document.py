"""A strict YAML document: plain values, and the line each key stands on.

YAML as its 1.2 core schema reads it: `on-demand` and `no` are words, `2026-11-01` is text, `1:30` is text. Duplicate
keys, anchors, aliases and tags are errors: a scenario says one thing, once, where it stands.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from trilemma.errors import InputError

KeyPath = tuple[str | int, ...]
MAX_DEPTH: Final = 20


class _Reader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2 does."""


_Reader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", "~nN"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("int", r"[-+]?[0-9]{1,400}", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))", "-+."),
):
    _Reader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^{_pattern}$"), [*_first])
_Reader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])


def show_path(path: KeyPath) -> str:
    """A key path as people write it.

    >>> show_path(("workload", "profile", "multipliers", 3))
    'workload.profile.multipliers[3]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed document: `data`, the 1-based line of each key and list entry, and the name errors give the file.

    `flags` are key paths set from outside the file; errors there name the flag instead of a line.
    """

    name: str
    data: dict[str, object]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    flags: frozenset[KeyPath] = frozenset()

    def where(self, path: KeyPath) -> str:
        """Where `path` stands: file, line and key, or the flag that set it; the nearest parent's line if it is absent.

        >>> Document(name="chat.yaml", data={}, lines={("seed",): 4}).where(("seed",))
        'chat.yaml:4: seed'
        """
        shown = show_path(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.flags:
                return f"--set {show_path(path[:length])}" + (f": {shown}" if length < len(path) else "")
        if inside := [flag for flag in self.flags if flag[: len(path)] == path and path]:
            return f"--set {show_path(min(inside, key=str))}"
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}: {shown}"
        return f"{self.name}: {shown}" if shown else self.name


def read_document(text: str, *, name: str) -> Document:
    """The mapping that `text` holds; raises InputError with file, line and column for anything else."""
    node = _compose(text, name=name)
    if not isinstance(node, MappingNode):
        found = "an empty file" if node is None else "a list" if isinstance(node, SequenceNode) else "a single value"
        raise InputError(name, expected="a mapping of keys such as 'version: 1'", found=found)
    lines: dict[KeyPath, int] = {}
    data = _value(node, path=(), name=name, lines=lines)
    assert isinstance(data, dict)
    return Document(name=name, data=data, lines=lines)


def read_value(text: str, *, where: str) -> object:
    """A value as written behind a flag's equals sign: any YAML value on one line.

    >>> read_value("[1, 2, 4]", where="--set"), read_value("500 ms", where="--set"), read_value("", where="--set")
    ([1, 2, 4], '500 ms', None)
    """
    node = _compose(text, name=where)
    return None if node is None else _value(node, path=(), name=where, lines={})


def override(document: Document, overrides: Mapping[str, object]) -> Document:
    """`document` with dotted keys replaced; text is read as a YAML value, None removes the key.

    >>> sparse = Document(name="chat.yaml", data={"seed": 1})
    >>> override(sparse, {"space.max_gpus": "16"}).data
    {'seed': 1, 'space': {'max_gpus': 16}}
    """
    data, flags = _copy(document.data), set(document.flags)
    assert isinstance(data, dict)
    for dotted, given in overrides.items():
        keys = dotted.split(".")
        if not all(keys):
            raise InputError(f"--set {dotted}", expected="a key such as 'space.max_gpus'", found=repr(dotted))
        value = read_value(given, where=f"--set {dotted}") if isinstance(given, str) else given
        place = data
        for depth, key in enumerate(keys[:-1]):
            child = place.setdefault(key, {})
            if not isinstance(child, dict):
                found = f"{'.'.join(keys[: depth + 1])} = {child!r}"
                raise InputError(f"--set {dotted}", expected="a key inside a mapping", found=found)
            place = child
        if value is None:
            place.pop(keys[-1], None)
        else:
            place[keys[-1]] = value
        flags.add(tuple(keys))
    return Document(name=document.name, data=data, lines=document.lines, flags=frozenset(flags))


def _copy(value: object) -> object:
    """A deep copy of mappings; lists are replaced whole, never edited."""
    return {key: _copy(child) for key, child in value.items()} if isinstance(value, dict) else value


def _compose(text: str, *, name: str) -> Node | None:
    """The node tree of one document; syntax errors as InputError with line and column."""
    try:
        for event in yaml.parse(text, Loader=_Reader):
            if (anchor := getattr(event, "anchor", None)) is not None:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(f"{name}:{line}", expected="values written out", found=f"the anchor {anchor!r}")
        node: Node | None = yaml.compose(text, Loader=_Reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        found = ", ".join(part for part in (error.context, error.problem) if part) or "something else"
        raise InputError(place, expected="YAML", found=found) from None
    except yaml.YAMLError as error:
        raise InputError(name, expected="YAML", found=" ".join(str(error).split())) from None
    except RecursionError:
        raise InputError(name, expected=f"values nested at most {MAX_DEPTH} deep", found="more") from None
    return node


def _value(node: Node, *, path: KeyPath, name: str, lines: dict[KeyPath, int]) -> object:
    """The plain value of a node; notes the line of every key and list entry below it."""
    at = f"{name}:{node.start_mark.line + 1}"
    if len(path) > MAX_DEPTH:
        raise InputError(at, expected=f"values nested at most {MAX_DEPTH} deep", found="more")
    if isinstance(node, SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        entries = []
        for index, child in enumerate(node.value):
            lines[(*path, index)] = child.start_mark.line + 1
            entries.append(_value(child, path=(*path, index), name=name, lines=lines))
        return entries
    if isinstance(node, MappingNode) and node.tag == "tag:yaml.org,2002:map":
        mapping: dict[str, object] = {}
        for key_node, child in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise InputError(f"{name}:{line}", expected="a word as key", found="a list or mapping")
            if key in mapping:
                first = lines[(*path, key)]
                hint = f"first on line {first}"
                raise InputError(
                    f"{name}:{line}: {show_path((*path, key))}", expected="each key once", found="it twice", hint=hint
                )
            lines[(*path, key)] = line
            mapping[key] = _value(child, path=(*path, key), name=name, lines=lines)
        return mapping
    return _scalar(node, at=at)


def _scalar(node: Node, *, at: str) -> object:
    """A text, number, truth value or None."""
    text = str(node.value)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise InputError(at, expected="a plain value", found=f"the tag {node.tag!r}")

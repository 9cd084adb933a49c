"""Model rows: the compact TOML form of an architecture, read strictly and written back."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn

from trilemma.catalogue.model import Attention, AttentionKind, Block, Mlp, Model
from trilemma.errors import InputError

# What a mixer of each kind cannot do without; everything else has a default.
_NEEDED: Mapping[AttentionKind, tuple[str, ...]] = {
    AttentionKind.GQA: ("kv_heads", "head_dim"),
    AttentionKind.MLA: ("kv_lora_rank", "nope_head_dim", "v_head_dim"),
    AttentionKind.LINEAR: ("kv_heads", "head_dim", "v_head_dim", "conv_kernel"),
    AttentionKind.SSM: ("head_dim", "state_dim", "groups", "conv_kernel"),
}
_EXPECTED = {"int": "a positive integer", "int | None": "a positive integer", "bool": "true or false", "str": "text"}


def read_model_rows(table: Mapping[str, object], *, where: str) -> dict[str, Model]:
    """The models of a catalogue file's `[models]` table, by name; `where` names the file in errors.

    A row is `[models."owner/name"]` with hidden, vocab and blocks, a list of {count, attention, mlp}; keys and meaning
    are those of `Model`, `Block`, `Attention` and `Mlp`, and what equals a default is left out (v_head_dim of GQA:
    head_dim). Numbers that are stated are positive. Raises InputError naming file and key for unknown keys, wrong
    types, numbers that are not positive, missing keys, and an alias that two rows claim.

    >>> row = {"hidden": 64, "vocab": 1000, "blocks": [{"count": 2, "mlp": {"width": 256}}]}
    >>> read_model_rows({"toy": row}, where="my.toml")["toy"].layers
    2
    """
    models = {name: _model(name, row, f"{where}: models.{name}") for name, row in table.items()}
    claimed: dict[str, str] = {name.lower(): name for name in models}
    for name, model in models.items():
        for alias in model.aliases:
            owner = claimed.setdefault(alias.lower(), name)
            if owner != name:
                _refuse(f"{where}: models.{name}.aliases", "names no other row has", f"{alias!r} of {owner}")
    return models


def row_of(model: Model) -> dict[str, Any]:
    """The row that reads back as `model`: plain values, defaults left out, the name being the row's key."""
    return _plain(model, skip=("name",))


def _plain(value: Model | Block | Attention | Mlp, *, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    out: dict[str, Any] = {}
    usual_width = value.head_dim if isinstance(value, Attention) and value.kind is AttentionKind.GQA else None
    for field in fields(value):
        held = getattr(value, field.name)
        if field.name in skip or (field.default is not MISSING and held == field.default):
            continue
        if field.name == "v_head_dim" and held == usual_width:
            continue
        if isinstance(held, Attention | Mlp | Block):
            held = _plain(held)
        elif isinstance(held, tuple):
            held = [_plain(item) if isinstance(item, Block) else item for item in held]
        elif isinstance(held, AttentionKind):
            held = held.value
        out[field.name] = held
    return out


def _model(name: str, row: object, where: str) -> Model:
    values = _read(row, Model, where, special=("name", "blocks", "aliases"))
    raw = values.pop("blocks")
    if not isinstance(raw, list) or not raw:
        _refuse(f"{where}.blocks", "a list of blocks", repr(raw)[:60])
    aliases = values.pop("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) and alias for alias in aliases):
        _refuse(f"{where}.aliases", "a list of names", repr(aliases)[:60])
    if "name" in values:
        _refuse(f"{where}.name", "no such key: the row's own key is the name", repr(values["name"])[:60])
    blocks = tuple(_block(block, f"{where}.blocks[{i}]") for i, block in enumerate(raw))
    return Model(name=name, blocks=blocks, aliases=tuple(aliases), **values)


def _block(raw: object, where: str) -> Block:
    values = _read(raw, Block, where, special=("attention", "mlp"))
    attention, mlp = values.pop("attention", None), values.pop("mlp", None)
    if attention is None and mlp is None:
        _refuse(where, "an attention, an mlp, or both", "neither")
    return Block(
        attention=None if attention is None else _attention(attention, f"{where}.attention"),
        mlp=None if mlp is None else _mlp(mlp, f"{where}.mlp"),
        **values,
    )


def _attention(raw: object, where: str) -> Attention:
    values = _read(raw, Attention, where, special=("kind",))
    kinds = [kind.value for kind in AttentionKind]
    if values["kind"] not in kinds:
        _refuse(f"{where}.kind", f"one of {', '.join(kinds)}", repr(values["kind"])[:60])
    kind = values["kind"] = AttentionKind(values["kind"])
    for key in _NEEDED[kind]:
        if key not in values:
            _refuse(f"{where}.{key}", "a positive integer", f"no such key (kind {kind.value} needs it)")
    if kind is AttentionKind.GQA:
        values.setdefault("v_head_dim", values["head_dim"])
    if "kv_heads" in values and values["heads"] % values["kv_heads"]:
        _refuse(f"{where}.kv_heads", f"a divisor of the {values['heads']} heads", str(values["kv_heads"]))
    return Attention(**values)


def _mlp(raw: object, where: str) -> Mlp:
    values = _read(raw, Mlp, where)
    experts = values.get("experts", 0)
    if experts:
        for key in ("experts_per_token", "expert_width"):
            if key not in values:
                _refuse(f"{where}.{key}", "a positive integer", "no such key (experts need it)")
        if values["experts_per_token"] > experts:
            _refuse(f"{where}.experts_per_token", f"at most {experts}", str(values["experts_per_token"]))
    elif "width" not in values:
        _refuse(f"{where}.width", "a positive integer", "neither width nor experts")
    return Mlp(**values)


def _read(
    raw: object, cls: type[Model | Block | Attention | Mlp], where: str, *, special: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The keys of `raw` checked against the fields of `cls`; `special` ones are returned unchecked."""
    if not isinstance(raw, Mapping):
        _refuse(where, "a table", repr(raw)[:60])
    known: dict[str, Field[Any]] = {field.name: field for field in fields(cls)}
    for key, value in raw.items():
        if key not in known:
            _refuse(f"{where}.{key}", f"one of {', '.join(k for k in known if k != 'name')}", "an unknown key")
        if key not in special:
            _check(value, str(known[key].type).replace("<class '", "").replace("'>", ""), f"{where}.{key}")
    for key, field in known.items():
        if field.default is MISSING and key not in raw and key != "name":
            _refuse(f"{where}.{key}", "a value", "no such key")
    return dict(raw)


def _check(value: object, kind: str, where: str) -> None:
    if kind == "bool":
        good = isinstance(value, bool)
    elif kind == "str":
        good = isinstance(value, str)
    else:
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not good:
        _refuse(where, _EXPECTED.get(kind, "a positive integer"), repr(value)[:60])


def _refuse(where: str, expected: str, found: str) -> NoReturn:
    raise InputError(where, expected=expected, found=found)

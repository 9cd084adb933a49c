"""Finding a row by name or alias, whatever the case, and naming the nearest ones when there is none."""

from collections.abc import Iterable, Mapping

from trilemma.errors import InputError


def key_of(name: str) -> str:
    """A name without case and with one kind of separator.

    >>> key_of("H100-SXM ") == key_of("h100_sxm")
    True
    """
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def index_names(aliases: Mapping[str, Iterable[str]], *, what: str, where: Mapping[str, str]) -> dict[str, str]:
    """Key of every name and alias -> the row's name, from aliases by row name.

    Raises InputError, naming the later row's place, where one name stands for two rows.
    """
    index = {key_of(name): name for name in aliases}
    for name, others in aliases.items():
        for alias in others:
            owner = index.setdefault(key_of(alias), name)
            if owner != name:
                raise InputError(
                    where.get(name, name), expected=f"an alias no other {what} has", found=repr(alias),
                    hint=f"it means {owner}",
                )  # fmt: skip
    return index


def nearest(name: str, index: Mapping[str, str], count: int = 4) -> list[str]:
    """Up to `count` row names near `name`: those that contain it, then those spelt alike, with or without an owner."""
    import difflib

    key = key_of(name)
    spellings = {known.rpartition("/")[2]: owner for known, owner in index.items()} | dict(index)
    within = [owner for known, owner in index.items() if key in known or known in key] if len(key) > 2 else []
    alike = [spellings[known] for known in difflib.get_close_matches(key, spellings, n=2 * count, cutoff=0.5)]
    return list(dict.fromkeys([*dict.fromkeys(within), *alike]))[:count]


def find(name: str, index: Mapping[str, str], *, what: str, where: str = "", also: str = "") -> str:
    """The row's name for a name or alias; InputError with the nearest names where there is none.

    `what` is the kind of row, `where` the place to blame instead, `also` what else would have been right.

    >>> find("H100", {"h100_sxm": "h100_sxm", "h100": "h100_sxm"}, what="accelerator")
    'h100_sxm'
    """
    found = index.get(key_of(name))
    if found is not None:
        return found
    close = nearest(name, index)
    names = sorted(set(index.values()))
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    hint = f"nearest: {', '.join(close)}" if close else f"known: {', '.join(names[:12])}{more}"
    raise InputError(
        where or what, expected=f"the name of {_a(what)} in the catalogue{also}", found=repr(name), hint=hint
    )


def _a(what: str) -> str:
    return f"an {what}" if what[0] in "aeioA" else f"a {what}"

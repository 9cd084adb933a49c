"""What can go wrong by a user's hand, said with place, expectation and finding; anything else is a bug.

Exit codes (design contract): 0 done, 2 usage or bad input, 3 infeasible, 4 a limit or regression check failed,
5 unsupported.
"""

from collections.abc import Iterable


class TrilemmaError(Exception):
    """A user-facing failure with an exit code; the command line prints its text and no traceback."""

    exit_code = 2


class InputError(TrilemmaError):
    """Bad input. `where` names the file, line, key or flag; the text says what was expected and what was found.

    >>> str(InputError("chat.yaml: limits[0]", expected="a time with a unit such as '500 ms'", found="'500'"))
    "chat.yaml: limits[0]: expected a time with a unit such as '500 ms', found '500'"
    """

    exit_code = 2

    def __init__(self, where: str, *, expected: str, found: str, hint: str = "") -> None:
        self.where, self.expected, self.found, self.hint = where, expected, found, hint
        super().__init__(f"{where}: expected {expected}, found {found}" + (f" ({hint})" if hint else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return _input_error, (self.where, self.expected, self.found, self.hint)


def _input_error(where: str, expected: str, found: str, hint: str) -> InputError:
    """What another process raised, raised again in this one."""
    return InputError(where, expected=expected, found=found, hint=hint)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word; empty where none is near.

    >>> did_you_mean("azur", ["azure", "mooncake"])
    "did you mean 'azure'?"
    """
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


class InfeasibleError(TrilemmaError):
    """Nothing meets what was asked; the text holds the nearest miss and the cheapest relaxation."""

    exit_code = 3


class CheckFailedError(TrilemmaError):
    """A limit or a regression check failed."""

    exit_code = 4


class UnsupportedError(TrilemmaError):
    """Well-formed input that this version cannot price or simulate."""

    exit_code = 5

"""Speculative decoding as the simulator plays it: how many tokens a decode step proposes, and how many it yields."""

from dataclasses import dataclass

SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """A decode step computes 1 + draft_tokens tokens of every decoding sequence and emits some of them.

    acceptance (draft_tokens + 1,): probability that exactly 1, 2, ... draft_tokens + 1 tokens are emitted; sums to 1.
    `draft_ps`, picoseconds, is what proposing adds to each step that decodes. `seed` keys the draws: the same request
    draws the same numbers whatever happens around it.

    ValueError for a distribution of another length, with a negative entry or that does not sum to 1.
    """

    draft_tokens: int
    acceptance: tuple[float, ...]
    draft_ps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.draft_tokens, self.draft_ps, self.seed) < 0:
            raise ValueError(f"draft tokens, draft time and seed cannot be negative, found {self}")
        if len(self.acceptance) != self.draft_tokens + 1:
            raise ValueError(
                f"{self.draft_tokens} draft tokens need {self.draft_tokens + 1} probabilities, "
                f"found {len(self.acceptance)}"
            )
        if not all(p >= 0 for p in self.acceptance) or not abs(sum(self.acceptance) - 1) <= SUM_TOLERANCE:
            raise ValueError(f"probabilities cannot be negative and must sum to 1, found {self.acceptance}")

    @property
    def mean_tokens(self) -> float:
        """Tokens a sequence emits per decode step, on average.

        >>> Speculation(draft_tokens=2, acceptance=(0.5, 0.25, 0.25)).mean_tokens
        1.75
        """
        return sum(count * p for count, p in enumerate(self.acceptance, start=1))

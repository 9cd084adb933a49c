"""Speculative decoding as the simulator plays it: how many tokens a decode step proposes, and how many it yields."""

from dataclasses import dataclass

from trilemma.sim.checks import whole

SUM_TOLERANCE = 1e-9
MOST_DRAFT_TOKENS = 2**16
LONGEST_DRAFT_PS = 10**15
MOST_SEED = 2**32 - 1  # it is the upper half of an unsigned key of 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """A decode step computes 1 + draft_tokens tokens of every decoding sequence and emits some of them.

    acceptance (draft_tokens + 1,): probability that exactly 1, 2, ... draft_tokens + 1 tokens are emitted; sums to 1.
    `draft_ps`, picoseconds, is what proposing adds to each step that decodes. `seed` keys the draws: the same request
    draws the same numbers whatever happens around it.

    ValueError for negative numbers or ones that are not whole, a distribution of another length, with a negative entry
    or that does not sum to 1; UnsupportedError for more than MOST_DRAFT_TOKENS, LONGEST_DRAFT_PS or MOST_SEED.
    """

    draft_tokens: int
    acceptance: tuple[float, ...]
    draft_ps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in (("draft_tokens", MOST_DRAFT_TOKENS), ("draft_ps", LONGEST_DRAFT_PS), ("seed", MOST_SEED)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least=0, most=most))
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

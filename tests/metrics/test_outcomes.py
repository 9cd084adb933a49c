"""What happened to requests: every one has a status, every second of the queue a reason."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from tests.report.outcomes import runs

from trilemma.metrics.outcomes import STATUSES, WAIT_REASONS


@given(runs())
def test_every_request_has_one_status(run):
    for status, done, lost in zip(run.status, run.timings.done_s, run.lost_s, strict=True):
        assert STATUSES[status] == ("finished" if np.isfinite(done) else "failed" if np.isfinite(lost) else "refused")


@given(runs())
def test_queued_time_is_split_by_reason_and_nothing_is_left(run):
    shares, counts = run.wait_shares, run.wait_counts
    assert list(shares) == list(counts) == list(WAIT_REASONS)
    assert sum(counts.values()) == len(run)
    total = np.nansum(run.queued_s)
    assert sum(shares.values()) == pytest.approx(1 if total > 0 else 0)
    for code, name in enumerate(WAIT_REASONS):
        assert shares[name] * total == pytest.approx(np.nansum(run.queued_s[run.wait_reason == code]))


@given(runs())
def test_the_hit_share_is_over_prompts_that_started(run):
    started = np.isfinite(run.queued_s)
    if not started.any():
        assert run.hit_share is None
    else:
        assert run.hit_share * run.timings.prompt_tokens[started].sum() == pytest.approx(run.hit_tokens[started].sum())
        everything = replace(run, hit_tokens=run.timings.prompt_tokens)
        assert everything.hit_share == 1


@given(runs(min_size=1))
def test_columns_of_different_length_are_refused(run):
    for name in ("queued_s", "replica", "hit_tokens", "wait_reason", "lost_s"):
        with pytest.raises(ValueError, match=name):
            replace(run, **{name: getattr(run, name)[1:]})

"""Arithmetic of the steps taken at once: bits, blocks, affine sums and the histogram of gaps."""

import numpy as np

from trilemma.sim.compiled import entry, inner
from trilemma.sim.layout import HISTOGRAM_SUBBINS, LONGEST_STRETCH, WORD
from trilemma.units import PS_PER_S

USUAL_PAGE = 16  # vLLM's KV block
NEARLY_STRAIGHT = 0.02  # so much longer than its first step a stretch's mean step may be for an estimate without a root


@inner
def bin_of(gap_ps):
    """Histogram bin of a positive gap: its exponent and 9 bits of its mantissa, read off the float's bits."""
    return (np.float64(gap_ps).view(np.int64) >> 43) - 1022 * HISTOGRAM_SUBBINS


@inner
def bin_end(gap_ps):
    """The smallest gap beyond the bin of a positive gap, ps; gaps below 2**10 ps have bins of their own."""
    shift = max((np.float64(gap_ps).view(np.int64) >> 52) - 1023 - 9, 0)
    return ((gap_ps >> shift) + 1) << shift


@inner
def pages_of(tokens, page):
    """KV blocks of so many tokens."""
    if page == USUAL_PAGE:  # a shift takes a tenth of a division's time
        return (tokens + USUAL_PAGE - 1) // USUAL_PAGE
    return np.int64(np.uint64(tokens + page - 1) // np.uint64(page))


@inner
def residue(tokens, page):
    """tokens mod page, of a number that may be negative but not below -2**40 pages."""
    if page == USUAL_PAGE:
        return tokens & (USUAL_PAGE - 1)
    return np.int64(np.uint64(tokens + (page << 40)) % np.uint64(page))


@inner
def next_set(bits, offset, mask, index):
    """Steps from `index` (included) to the next set bit of a circular bitmap; a large number if none is set."""
    words = (mask + 1) // WORD
    word = (index & mask) // WORD
    value = bits[offset + word] >> (index & (WORD - 1)) << (index & (WORD - 1))
    ahead = -(index & (WORD - 1))
    for _ in range(words + 1):
        if value != 0:
            lowest = (np.float64(value & -value).view(np.int64) >> 52) - 1023
            return ahead + lowest
        ahead += WORD
        word += 1
        if word == words:
            word = 0
        value = bits[offset + word]
    return np.int64(LONGEST_STRETCH * 4)


@inner
def first_reaching(first_ps, slope_ps, wanted_ps):
    """(k, k first + slope k (k - 1) / 2) for the least k >= 1 for which that is at least `wanted_ps`."""
    straight = wanted_ps / first_ps
    bend = 0.5 * slope_ps * straight / first_ps
    if bend < NEARLY_STRAIGHT:
        k = np.int64(straight - straight * bend)
    else:
        half = first_ps - 0.5 * slope_ps
        k = np.int64((np.sqrt(half * half + 2.0 * slope_ps * wanted_ps) - half) / slope_ps)
    k = max(k, 1)
    reached = k * first_ps + slope_ps * (k * (k - 1) // 2)
    while reached < wanted_ps:
        reached += first_ps + slope_ps * k
        k += 1
    while k > 1 and reached - (first_ps + slope_ps * (k - 1)) >= wanted_ps:
        k -= 1
        reached -= first_ps + slope_ps * k
    return k, reached


@inner
def add_gaps(histogram, count, first_ps, slope_ps, steps):
    """Count the gaps of `count` sequences over steps of first, first + slope, ... ps."""
    if slope_ps == 0:
        histogram[np.uint64(bin_of(first_ps))] += count * steps
    else:
        gap = first_ps
        left = steps
        while gap + slope_ps * (left - 1) >= bin_end(gap):
            inside = np.int64(np.uint64(bin_end(gap) - gap + slope_ps - 1) // np.uint64(slope_ps))
            histogram[np.uint64(bin_of(gap))] += count * inside
            left -= inside
            gap += inside * slope_ps
        histogram[np.uint64(bin_of(gap))] += count * left


@entry
def divide(ps, in_seconds):
    """Picoseconds (n,) into seconds (n,), which may be the same memory; NaN for negative ones."""
    for i in range(ps.size):
        in_seconds[i] = ps[i] / PS_PER_S if ps[i] >= 0 else np.nan


@entry
def round_to_ps(seconds, ps):
    """Seconds (n,) to the nearest whole picosecond, into ps (n,)."""
    for i in range(seconds.size):
        ps[i] = np.int64(np.rint(seconds[i] * PS_PER_S))


@entry
def settle_times(arrival, start, first, done, arrival_s, queued_s, first_s, done_s):
    """Four columns of ps (n,) into seconds, NaN for negative ones, in one pass; the start becomes the time queued.

    Each may be the same memory as the ps it is made from.
    """
    for i in range(arrival.size):
        came_s = arrival[i] / PS_PER_S if arrival[i] >= 0 else np.nan
        queued_s[i] = start[i] / PS_PER_S - came_s if start[i] >= 0 else np.nan
        first_s[i] = first[i] / PS_PER_S if first[i] >= 0 else np.nan
        done_s[i] = done[i] / PS_PER_S if done[i] >= 0 else np.nan
        arrival_s[i] = came_s

"""Running sequences: out of the order of admission, the ring of finish steps and the sliding window's ring."""

import numpy as np

from trilemma.sim.compiled import inner
from trilemma.sim.layout import AFTER, BEFORE, FINISH, RING_NEXT, RING_PREV, WORD

U = np.uint64  # an index that is not negative: numba then leaves out its test for that


@inner
def unlink(slots, slot, head, tail):
    """Take a slot out of the admission order; the new (head, tail)."""
    prv, nxt = slots[U(slot), BEFORE], slots[U(slot), AFTER]
    if prv == -1:
        head = nxt
    else:
        slots[U(prv), AFTER] = nxt
    if nxt == -1:
        tail = prv
    else:
        slots[U(nxt), BEFORE] = prv
    return head, tail


@inner
def unring(state, slot, ring0, ring_mask):
    """Take a decode out of the ring of finish steps."""
    slots = state.slots
    nxt, prv = slots[U(slot), RING_NEXT], slots[U(slot), RING_PREV]
    if nxt != -1:
        slots[U(nxt), RING_PREV] = prv
    if prv != -1:
        slots[U(prv), RING_NEXT] = nxt
    else:
        bucket = slots[U(slot), FINISH] & ring_mask
        state.ring[U(ring0 + bucket)] = nxt
        if nxt == -1:
            state.ring_bits[U((ring0 + bucket) // WORD)] &= ~(1 << (bucket & (WORD - 1)))


@inner
def grown(state, window0, window_mask, step, window, young, young_base):
    """Decodes whose context has reached the window stop growing in it; (young, young_base)."""
    at = window0 + (step & window_mask)
    count = state.window_ring[at]
    if count > 0:
        state.window_ring[at] = 0
        state.window_bits[at // WORD] &= ~(1 << (at & (WORD - 1)))
        young -= count
        young_base -= count * (window - 1 - step)
    return young, young_base


@inner
def forget_young(state, window0, window_mask, at_step, base, young, young_base):
    """A decode that still grew inside the window is gone; (young, young_base)."""
    at = window0 + (at_step & window_mask)
    state.window_ring[at] -= 1
    if state.window_ring[at] == 0:
        state.window_bits[at // WORD] &= ~(1 << (at & (WORD - 1)))
    return young - 1, young_base - base

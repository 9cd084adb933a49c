"""How much of the prompts an endless prefix cache could serve: the ceiling of what caching can save."""

import math
from dataclasses import dataclass, replace

import numpy as np

from trilemma.workload.requests import IntArray, Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixReuse:
    """Reuse under one cache that never evicts, requests in arrival order, a hit being a block of an earlier request.

    hit_token_share: prompt tokens found in the cache over all prompt tokens; requests_with_hit_share: requests with
    at least one block found; distinct_blocks: what such a cache would end up holding.
    """

    block_tokens: int
    distinct_blocks: int
    hit_token_share: float
    requests_with_hit_share: float


def cached_tokens(requests: Requests) -> IntArray | None:
    """(n,) prompt tokens that an endless prefix cache holds when each request comes; None without block ids.

    A hit is the longest run of leading blocks that earlier requests had; the last prompt token is never cached, for
    it must be computed to emit the first output (as vLLM does).
    """
    offsets, ids = requests.block_offsets, requests.block_ids
    if offsets is None or ids is None:
        return None
    counts = np.diff(offsets)
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    starts = np.repeat(offsets[:-1], counts)
    missing = first[which.reshape(-1)] >= starts
    # The leading run of a request ends at its first missing block: the first one at or after its start, or its end.
    at = np.append(np.flatnonzero(missing), ids.size)
    run = np.minimum(at[np.searchsorted(at, offsets[:-1])], offsets[1:]) - offsets[:-1]
    cached: IntArray = np.minimum(run * requests.block_tokens, requests.prompt_tokens - 1)
    return cached


def prefix_reuse(requests: Requests) -> PrefixReuse | None:
    """The shares over a whole table; None without block ids or without requests.

    >>> twice = Requests(arrival_s=np.zeros(2), prompt_tokens=np.array([8, 8]), output_tokens=np.array([1, 1]),
    ...                  block_offsets=np.array([0, 2, 4]), block_ids=np.array([1, 2, 1, 3]), block_tokens=4)
    >>> prefix_reuse(twice).hit_token_share
    0.25
    """
    cached = cached_tokens(requests)
    if cached is None or requests.block_ids is None or not cached.size:
        return None
    return PrefixReuse(
        block_tokens=requests.block_tokens,
        distinct_blocks=int(np.unique(requests.block_ids).size),
        hit_token_share=float(cached.sum() / requests.prompt_tokens.sum()),
        requests_with_hit_share=float((cached > 0).mean()),
    )


def in_blocks_of(requests: Requests, block_tokens: int) -> Requests:
    """The same prefixes named in blocks that are a multiple of `block_tokens`; unchanged where they are already.

    A larger block is named by the last of the blocks it holds, which is enough where an id stands for its block with
    everything before it, as hash chains do. What is left at the end of a chain names no whole block and is dropped.

    >>> one = Requests(arrival_s=np.zeros(1), prompt_tokens=np.array([80]), output_tokens=np.array([1]),
    ...                block_offsets=np.array([0, 5]), block_ids=np.array([7, 8, 9, 10, 11]), block_tokens=16)
    >>> coarse = in_blocks_of(one, 32)
    >>> coarse.block_tokens, coarse.block_ids.tolist(), in_blocks_of(one, 8) is one
    (32, [8, 10], True)
    """
    if requests.block_offsets is None or requests.block_ids is None or not requests.block_tokens % block_tokens:
        return requests
    wanted = math.lcm(requests.block_tokens, block_tokens)
    each = wanted // requests.block_tokens
    counts = np.diff(requests.block_offsets) // each
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    place = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], counts)
    ids = requests.block_ids[np.repeat(requests.block_offsets[:-1], counts) + place * each + each - 1]
    return replace(requests, block_offsets=offsets, block_ids=ids, block_tokens=wanted)

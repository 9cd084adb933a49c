import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.sending import table
from trilemma.bench.prompts import Form, Prompts, Writing
from trilemma.workload.arrivals import Arrivals
from trilemma.workload.lengths import Fixed
from trilemma.workload.requests import Requests
from trilemma.workload.sessions import FixedTime, Sessions, generate_sessions

IDS = Writing(form=Form.TOKEN_IDS, first_id=1000, last_id=2000)
TEXT = Writing(form=Form.TEXT)


def common(one, two):
    """How many leading words two prompts share."""
    shorter = min(len(one), len(two))
    return next((i for i in range(shorter) if one[i] != two[i]), shorter)


def chained(chains, prompt_tokens, block_tokens):
    offsets = np.cumsum([0, *(len(chain) for chain in chains)])
    return Requests(
        arrival_s=np.zeros(len(chains)),
        prompt_tokens=np.array(prompt_tokens),
        output_tokens=np.ones(len(chains), np.int64),
        block_offsets=offsets,
        block_ids=np.array([block for chain in chains for block in chain], np.int64),
        block_tokens=block_tokens,
    )


@settings(max_examples=60, deadline=None)
@given(
    chains=st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=2, max_size=4),
    block_tokens=st.sampled_from([4, 16, 33]),
    writing=st.sampled_from([IDS, TEXT]),
    data=st.data(),
)
def test_equal_leading_blocks_are_equal_text_and_what_follows_is_not(chains, block_tokens, writing, data):
    # Ids that stand for a block with everything before it, as hash chains do.
    chains = [[hash((chain[0], tuple(chain[: i + 1]))) & 0xFFFF_FFFF for i in range(len(chain))] for chain in chains]
    lengths = [data.draw(st.integers(1, 6 * block_tokens)) for _ in chains]
    prompts = Prompts(requests=chained(chains, lengths, block_tokens), writing=writing, salt=3)
    places = [prompts.places(i).tolist() for i in range(len(chains))]
    assert [len(place) for place in places] == lengths
    for i in range(len(chains)):
        for j in range(i):
            shared = min(common(chains[i], chains[j]) * block_tokens, lengths[i], lengths[j])
            # Behind the shared blocks words differ but for chance.
            assert shared <= common(places[i], places[j]) <= shared + 3


def test_a_text_of_longer_words_keeps_its_blocks():
    writing = Writing(form=Form.TEXT, tokens_per_word=1.7, extra_tokens=5.0)
    prompts = Prompts(requests=chained([[1, 2], [1, 2, 3]], [200, 290], 64), writing=writing, salt=0)
    one, two = (prompts.places(i).tolist() for i in range(2))
    assert (len(one), len(two)) == (round(195 / 1.7), round(285 / 1.7))
    assert common(one, two) >= int(128 / 1.7)


def test_prompts_without_blocks_share_nothing():
    prompts = Prompts(requests=table(20, prompt=64), writing=IDS, salt=1)
    assert max(common(prompts.places(i), prompts.places(0)) for i in range(1, 20)) <= 2


def test_another_salt_is_another_text_and_the_same_one_the_same():
    def first(salt):
        return Prompts(requests=chained([[1, 2]], [40], 16), writing=IDS, salt=salt).json(0)

    assert first(1) == first(1) != first(2)


def test_token_ids_stay_in_their_window():
    ids = Prompts(requests=table(3, prompt=5000), writing=IDS, salt=1).places(2)
    assert 0 <= ids.min() <= ids.max() < 1000
    assert len(set(ids.tolist())) > 900


@pytest.mark.parametrize("turns", [3])
def test_a_session_repeats_what_was_said(turns):
    chat = Sessions(
        turns=Fixed(tokens=turns), user_tokens=Fixed(tokens=20), output_tokens=Fixed(tokens=12),
        think_time=FixedTime(time_s=1.0), system_prompt_tokens=32,
    )  # fmt: skip
    requests = generate_sessions(Arrivals(process="constant", rate_per_s=1.0, requests=2), chat)
    prompts = Prompts(requests=requests, writing=IDS, salt=9)
    said = [prompts.places(i).tolist() for i in range(len(requests))]
    for turn in range(1, turns):
        whole = requests.prompt_tokens[turn - 1] // 16 * 16
        assert common(said[turn], said[turn - 1]) >= whole
    assert 32 <= common(said[0], said[turns]) <= 34, "two sessions share the system prompt alone"

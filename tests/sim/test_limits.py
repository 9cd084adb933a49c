"""A deployment's scheduler: its engine's rules over its knobs."""

from dataclasses import replace

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.deployment.memory import memory
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.sim.engine import Policy
from trilemma.sim.limits import POLICIES, WINDOWED_CHUNK_TOKENS, assumptions, limits_of

CATALOGUE = load_catalogue()


def deployment(engine, model="meta-llama/Meta-Llama-3.1-70B", tokens=8192, seats=1024, **parallelism):
    architecture = CATALOGUE.model(model)
    row = CATALOGUE.engine(engine)
    return Deployment(
        model=architecture,
        precision=CATALOGUE.precision("fp8", model=architecture),
        accelerator=CATALOGUE.accelerator("h200_sxm"),
        engine=row,
        parallelism=Parallelism(**parallelism),
        knobs=SchedulerKnobs(max_num_batched_tokens=tokens, max_num_seqs=seats, block_tokens=row.block_tokens),
    )


RANKS = {"model": "deepseek-ai/DeepSeek-V3", "data": 8, "expert": 8}


@pytest.mark.parametrize("engine", CATALOGUE.engines)
def test_every_engine_of_the_catalogue_has_rules_of_its_own(engine):
    limits = limits_of(deployment(engine), 5000)
    assert limits.policy is POLICIES[engine]
    assert (limits.max_num_batched_tokens, limits.max_num_seqs, limits.kv_blocks) == (8192, 1024, 5000)
    assert limits.block_tokens == CATALOGUE.engine(engine).block_tokens
    assert limits.chunked_prefill
    assert limits.max_new_tokens == 0
    assert not limits.async_scheduling
    assert not limits.prefix_caching


def test_an_engine_without_rules_here_is_played_by_those_of_vllm():
    plain = deployment("vllm")
    other = replace(plain, engine=replace(plain.engine, name="lmdeploy"))
    assert limits_of(other, 10) == limits_of(plain, 10)


def test_tensorrt_llm_cuts_prompts_into_whole_blocks():
    assert limits_of(deployment("trtllm"), 10).chunk_unit_tokens == 32
    assert limits_of(deployment("trtllm", model="gpt-oss-120b"), 10).chunk_unit_tokens == WINDOWED_CHUNK_TOKENS
    assert limits_of(deployment("trtllm", tokens=16, seats=8), 10).chunk_unit_tokens == 16
    assert limits_of(deployment("vllm", model="gpt-oss-120b"), 10).chunk_unit_tokens == 1


def test_sglang_divides_its_chunk_and_its_seats_by_the_ranks_and_holds_back_less():
    alone, ranked = limits_of(deployment("sglang"), 10), limits_of(deployment("sglang", **RANKS), 10)
    assert (alone.conservativeness, ranked.conservativeness) == (1.0, 0.3)
    assert (ranked.max_num_batched_tokens, ranked.max_num_seqs) == (1024, 128)
    few = limits_of(deployment("sglang", tokens=12, seats=4, **RANKS), 10)
    assert (few.max_num_batched_tokens, few.max_num_seqs) == (1, 1)
    for engine in ("vllm", "trtllm"):
        knobs = deployment(engine, **RANKS).rank_knobs
        assert (knobs.max_num_batched_tokens, knobs.max_num_seqs) == (8192, 1024)


def test_a_rank_that_takes_fewer_tokens_needs_less_memory_for_them():
    ranked = deployment("sglang", **RANKS)
    same = replace(ranked, engine=replace(ranked.engine, name="other"))
    assert memory(ranked).activation_bytes < memory(same).activation_bytes


def test_forced_lengths_are_held_back_whole_under_sglang_alone():
    for engine in CATALOGUE.engines:
        assert limits_of(deployment(engine), 10, ignore_eos=True).ignore_eos == (engine == "sglang")


def test_what_is_taken_for_granted_is_said():
    said = {engine: assumptions(limits_of(deployment(engine), 10)) for engine in CATALOGUE.engines}
    assert said["vllm"] == ()
    assert [text.split(":")[0] for text in said["sglang"]] == ["KV is held back by max_tokens"]
    assert len(said["trtllm"]) == 2
    limits = limits_of(deployment("trtllm"), 10)
    for known in (replace(limits, max_new_tokens=512), replace(limits, policy=Policy.TRTLLM_MAX_UTILIZATION)):
        assert assumptions(known) == ("chunked prefill is on, which TensorRT-LLM leaves off",)
    assert assumptions(limits_of(deployment("sglang"), 10, ignore_eos=True)) == ()
    (text,) = assumptions(limits_of(deployment("vllm"), 10), ranks=8)
    assert "step together" in text

"""The launch commands: exact words, and a shell reads them back as meant."""

import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.deploy.vllm import vllm_commands, vllm_script
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.errors import UnsupportedError

CATALOGUE = load_catalogue()
LLAMA, DEEPSEEK = "meta-llama/Meta-Llama-3.1-70B", "deepseek-ai/DeepSeek-V3"


def deployment(model=LLAMA, precision="bf16", accelerator="h100_sxm", *, replicas=1, kv=2.0, knobs=None, **parallelism):
    return Deployment(
        model=CATALOGUE.model(model),
        precision=CATALOGUE.precision(precision),
        accelerator=CATALOGUE.accelerator(accelerator),
        engine=CATALOGUE.engine("vllm"),
        parallelism=Parallelism(**parallelism),
        knobs=SchedulerKnobs(max_num_batched_tokens=8192, max_num_seqs=256, **(knobs or {})),
        kv_bytes_per_element=kv,
        replicas=replicas,
    )


def only(commands):
    (command,) = commands
    return command


def test_cuda_graphs_are_left_out_where_the_deployment_has_none():
    assert "--enforce-eager" not in only(vllm_commands(deployment())).text
    assert "--enforce-eager" in only(vllm_commands(deployment(knobs={"cuda_graphs": False}))).text


def test_a_plain_deployment_word_for_word():
    assert only(vllm_commands(deployment(tensor=4))).text == (
        "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve meta-llama/Meta-Llama-3.1-70B \\\n"
        "  --tensor-parallel-size 4 \\\n"
        "  --max-num-batched-tokens 8192 \\\n"
        "  --max-num-seqs 256 \\\n"
        "  --gpu-memory-utilization 0.92 \\\n"
        "  --no-enable-prefix-caching \\\n"
        "  --port 8000"
    )


def test_fp8_weights_and_cache_of_a_16_bit_checkpoint():
    words = only(vllm_commands(deployment(precision="fp8", kv=1.0, tensor=2, knobs={"max_model_len": 8192}))).words
    assert words == (
        "vllm", "serve", LLAMA, "--tensor-parallel-size", "2", "--quantization", "fp8_per_tensor",
        "--kv-cache-dtype", "fp8", "--max-num-batched-tokens", "8192", "--max-num-seqs", "256",
        "--gpu-memory-utilization", "0.92", "--max-model-len", "8192", "--no-enable-prefix-caching", "--port", "8000",
    )  # fmt: skip


def test_a_checkpoint_already_in_the_format_needs_no_flag():
    script = vllm_script(deployment(DEEPSEEK, "fp8", "h200_sxm", data=8, expert=8), prefix_caching=True)
    assert script == (
        "# vLLM, 1 x 8 GPUs of H200 SXM 141 GB\n\n# node 0\n"
        "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 vllm serve deepseek-ai/DeepSeek-V3 \\\n"
        "  --tensor-parallel-size 1 \\\n  --data-parallel-size 8 \\\n  --enable-expert-parallel \\\n"
        "  --max-num-batched-tokens 8192 \\\n  --max-num-seqs 256 \\\n  --gpu-memory-utilization 0.92 \\\n"
        "  --enable-prefix-caching \\\n  --port 8000\n"
    ).replace("H200 SXM 141 GB", CATALOGUE.accelerator("h200_sxm").title)


@pytest.mark.parametrize("precision", ["int4", "nvfp4", "int8"])
def test_four_bit_formats_ask_for_a_checkpoint_of_their_own(precision):
    wanted = deployment(precision=precision, tensor=1)
    script = vllm_script(wanted)
    assert f"vllm serve ./Meta-Llama-3.1-70B-{precision} " in script
    assert f"# ./Meta-Llama-3.1-70B-{precision} stands for a checkpoint in {precision}: vLLM cannot make it" in script
    assert "--quantization" not in script
    named = vllm_script(wanted, checkpoint="my/own checkpoint")
    assert "vllm serve 'my/own checkpoint' " in named
    assert "stands for" not in named


def test_replicas_share_a_node_and_then_take_the_next():
    commands = vllm_commands(deployment(tensor=4, replicas=3))
    places = [(c.node, c.gpus, c.words[-1]) for c in commands]
    assert places == [(0, (0, 1, 2, 3), "8000"), (0, (4, 5, 6, 7), "8001"), (1, (0, 1, 2, 3), "8000")]
    script = vllm_script(deployment(tensor=4, replicas=3))
    assert script.count(" &\n") == 3
    assert "# a router in front" in script


def test_a_replica_of_several_nodes_has_a_command_on_each():
    commands = vllm_commands(deployment("deepseek-ai/DeepSeek-V3", "fp8", tensor=8, pipeline=2, replicas=2))
    assert [c.node for c in commands] == [0, 1, 2, 3]
    assert commands[0].words[-10:] == (
        "--nnodes", "2", "--node-rank", "0", "--master-addr", "NODE_ADDRESS", "--master-port", "29501", "--port", "8000"
    )  # fmt: skip
    assert commands[1].words[-1] == "--headless"
    assert "--pipeline-parallel-size 2" in commands[0].text


def test_amd_hides_its_gpus_by_another_name():
    assert only(vllm_commands(deployment(accelerator="mi300x"))).text.startswith("HIP_VISIBLE_DEVICES=0 vllm serve")


def test_blocks_and_drafts_where_they_differ_from_the_default():
    special = deployment(tensor=8, knobs={"block_tokens": 32, "num_gpu_blocks": 1000})
    text = only(vllm_commands(replace(special, speculative_mtp=True))).text
    assert "  --block-size 32 \\\n  --num-gpu-blocks-override 1000 \\\n" in text
    assert """--speculative-config '{"method": "mtp", "num_speculative_tokens": 1}'""" in text


@pytest.mark.parametrize(
    "impossible",
    [
        deployment(DEEPSEEK, "fp8", tensor=8, expert=4),
        deployment(tensor=3, pipeline=3),
        deployment(kv=0.5),
        replace(deployment(), engine=CATALOGUE.engine("sglang")),
    ],
    ids=["expert groups", "odd nodes", "four-bit cache", "other engine"],
)
def test_what_has_no_flag_is_unsupported(impossible):
    with pytest.raises(UnsupportedError):
        vllm_commands(impossible)


@given(checkpoint=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), replicas=st.integers(1, 5))
def test_a_shell_reads_every_command_back(checkpoint, replicas):
    for command in vllm_commands(deployment(tensor=2, replicas=replicas), checkpoint=checkpoint):
        one_line = command.text.replace(" \\\n", "")  # shlex knows quotes, but not lines that go on
        assignment, *words = shlex.split(one_line)
        assert words == list(command.words)
        assert assignment == f"CUDA_VISIBLE_DEVICES={','.join(map(str, command.gpus))}"


@given(replicas=st.integers(1, 40), tensor=st.sampled_from([1, 2, 4, 8]))
def test_no_gpu_and_no_port_is_used_twice(replicas, tensor):
    commands = vllm_commands(deployment(tensor=tensor, replicas=replicas))
    gpus = [(c.node, gpu) for c in commands for gpu in c.gpus]
    ports = [(c.node, c.words[-1]) for c in commands]
    assert len(gpus) == len(set(gpus)) == replicas * tensor
    assert len(set(ports)) == replicas

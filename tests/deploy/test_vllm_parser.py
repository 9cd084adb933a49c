"""vLLM's own argument parser reads what we emit; runs where vLLM is installed."""

import pytest
from hypothesis import given, settings
from tests.deploy.rollouts import any_deployment

from trilemma.deploy.launch import launch_commands

cli_args = pytest.importorskip("vllm.entrypoints.launchers.cli_args")


@pytest.fixture(scope="module")
def parser():
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return cli_args.make_arg_parser(FlexibleArgumentParser())


@given(any_deployment(engines=("vllm",)))
@settings(max_examples=30, deadline=None)
def test_vllm_reads_every_command(parser, wanted):
    for command in launch_commands(wanted):
        read = parser.parse_args(list(command.words[2:]))
        assert read.model_tag == command.words[2]
        assert read.tensor_parallel_size == wanted.parallelism.tensor
        assert read.enable_expert_parallel == (wanted.parallelism.expert > 1)
        assert read.max_num_seqs == wanted.knobs.max_num_seqs
        assert read.max_num_batched_tokens == wanted.knobs.max_num_batched_tokens
        assert read.enable_prefix_caching == wanted.knobs.prefix_caching
        assert read.port == int(command.port) if command.port != "-" else read.headless

"""The commands that start a deployment under TensorRT-LLM: `trtllm-serve` and its YAML.

Options as in TensorRT-LLM 1.3.0rc29 (data/trtllm.toml). No key stands both in the YAML and among the flags: which of
the two wins differs between versions. Attention data parallelism is on or off: each GPU of a stage is then a rank.
"""

from typing import Any, Final

from trilemma.deploy.dialect import Dialect, Way, loaded, nodes_of
from trilemma.deployment.spec import Deployment
from trilemma.errors import UnsupportedError

CONFIG_FILE: Final = "trtllm.yaml"


def _words(deployment: Deployment, way: Way) -> tuple[str, ...]:
    """The words that all replicas share; what the flags do not say, the YAML does."""
    parallelism, knobs = deployment.parallelism, deployment.knobs
    words = ["trtllm-serve", loaded(TRTLLM, deployment, way)]
    words += ["--tp_size", str(parallelism.stage_gpus)]
    if parallelism.pipeline > 1:
        words += ["--pp_size", str(parallelism.pipeline)]
    if parallelism.expert > 1:
        if parallelism.stage_gpus % parallelism.expert:
            raise UnsupportedError(
                f"TensorRT-LLM's --ep_size divides --tp_size: {parallelism.expert} does not divide "
                f"{parallelism.stage_gpus}"
            )
        words += ["--ep_size", str(parallelism.expert)]
    if nodes_of(deployment) > 1:
        words += ["--gpus_per_node", str(deployment.accelerator.gpus_per_node)]
    words += ["--max_batch_size", str(knobs.max_num_seqs), "--max_num_tokens", str(knobs.max_num_batched_tokens)]
    if knobs.max_model_len is not None:
        words += ["--max_seq_len", str(knobs.max_model_len)]
    return (*words, "--config", CONFIG_FILE)


def trtllm_config(deployment: Deployment, way: Way) -> dict[str, Any]:
    """The contents of the YAML that `trtllm-serve --config` reads. UnsupportedError for what has no key."""
    parallelism, knobs = deployment.parallelism, deployment.knobs
    if parallelism.data > 1 and parallelism.tensor > 1:
        raise UnsupportedError(
            f"TensorRT-LLM's attention data parallelism makes every GPU a rank of its own: DP{parallelism.data} with "
            f"TP{parallelism.tensor} inside a rank has no option"
        )
    if deployment.kv_bytes_per_element not in {1, 2}:
        raise UnsupportedError(f"no TensorRT-LLM dtype of {deployment.kv_bytes_per_element:g} bytes a KV element")
    pool: dict[str, Any] = {
        "dtype": "fp8" if deployment.kv_bytes_per_element == 1 else "auto",
        "enable_block_reuse": way.prefix_caching,
        "free_gpu_memory_fraction": knobs.gpu_memory_utilization,
    }
    if knobs.block_tokens != deployment.engine.block_tokens:
        pool["tokens_per_block"] = knobs.block_tokens
    if knobs.num_gpu_blocks is not None:
        pool["max_tokens"] = knobs.num_gpu_blocks * knobs.block_tokens
    graphs = {"max_batch_size": knobs.max_num_seqs, "enable_padding": True} if knobs.cuda_graphs else None
    config: dict[str, Any] = {
        "enable_attention_dp": parallelism.data > 1,
        "enable_chunked_prefill": True,
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "kv_cache_config": pool,
        "cuda_graph_config": graphs,
        # Without these two it has no gauges of running and waiting requests.
        "return_perf_metrics": True,
        "enable_iter_perf_stats": True,
    }
    if deployment.speculative_mtp:
        config["speculative_config"] = {"decoding_type": "MTP", "max_draft_len": 1}
    return config


def _over_nodes(words: tuple[str, ...], deployment: Deployment) -> tuple[str, ...]:
    """One replica over several nodes: mpirun starts all of its processes from the first."""
    per_node = deployment.accelerator.gpus_per_node
    hosts = ",".join(f"NODE_{rank}:{per_node}" for rank in range(nodes_of(deployment)))
    return ("mpirun", "-np", str(deployment.parallelism.gpus), "-H", hosts, "trtllm-llmapi-launch", *words)


def _place(nodes: int, rank: int, leader: str) -> tuple[str, ...]:
    raise UnsupportedError(f"TensorRT-LLM starts its {nodes} nodes with mpirun, not node {rank} by itself at {leader}")


def _endpoint(port: int, answers: bool) -> tuple[str, ...]:
    """Where requests come in: it listens to its own machine alone unless told otherwise."""
    return ("--host", "0.0.0.0", "--port", str(port)) if answers else ()


TRTLLM: Final = Dialect(
    engine="trtllm",
    title="TensorRT-LLM",
    words=_words,
    place=_place,
    endpoint=_endpoint,
    made_while_loading={},  # its PyTorch backend takes the weights as the checkpoint has them
    config=trtllm_config,
    shared_launch=_over_nodes,
)

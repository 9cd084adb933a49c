"""The commands that start a deployment under SGLang.

Flags as in SGLang 0.5.23 (data/sglang.toml). `--tp-size` is all GPUs of a pipeline stage: attention data parallelism
(`--attn-dp-size`) and expert parallelism (`--ep-size`) divide it. Chunk and seats are those of all attention ranks
together: SGLang divides them.
"""

from typing import Final

from trilemma.deploy.dialect import Dialect, Way, is_made_while_loading, loaded
from trilemma.deployment.spec import Deployment
from trilemma.errors import UnsupportedError

DIST_PORT: Final = 20000


def _words(deployment: Deployment, way: Way) -> tuple[str, ...]:
    """The words that all processes of all replicas share."""
    parallelism, knobs = deployment.parallelism, deployment.knobs
    words = ["python3", "-m", "sglang.launch_server", "--model-path", loaded(SGLANG, deployment, way)]
    words += ["--served-model-name", way.served_name] if way.served_name else []
    words += ["--tp-size", str(parallelism.stage_gpus)]
    if parallelism.pipeline > 1:
        words += ["--pp-size", str(parallelism.pipeline)]
    if parallelism.data > 1:
        words += ["--attn-dp-size", str(parallelism.data)]
    if parallelism.expert > 1:
        if parallelism.stage_gpus % parallelism.expert:
            raise UnsupportedError(
                f"SGLang's --ep-size divides --tp-size: {parallelism.expert} does not divide {parallelism.stage_gpus}"
            )
        words += ["--ep-size", str(parallelism.expert)]
    if way.checkpoint is None and is_made_while_loading(SGLANG, deployment):
        words += ["--quantization", SGLANG.made_while_loading[deployment.precision.name]]
    words += _kv_flags(deployment)
    words += ["--chunked-prefill-size", str(knobs.max_num_batched_tokens)]
    words += ["--max-running-requests", str(knobs.max_num_seqs)]
    words += ["--mem-fraction-static", f"{knobs.gpu_memory_utilization:g}"]
    if knobs.max_model_len is not None:
        words += ["--context-length", str(knobs.max_model_len)]
    words += [] if way.prefix_caching else ["--disable-radix-cache"]
    if not knobs.cuda_graphs:
        words += ["--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"]
    if deployment.speculative_mtp:
        words += ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "1", "--speculative-eagle-topk", "1"]
        words += ["--speculative-num-draft-tokens", "2"]
    return (*words, "--enable-metrics")


def _kv_flags(deployment: Deployment) -> list[str]:
    """The KV cache's format and pages, where they differ from what SGLang chooses itself."""
    knobs, flags = deployment.knobs, []
    if deployment.kv_bytes_per_element == 1:
        flags += ["--kv-cache-dtype", "fp8_e4m3"]
    elif deployment.kv_bytes_per_element != 2:
        raise UnsupportedError(f"no SGLang flag for a KV cache of {deployment.kv_bytes_per_element:g} bytes an element")
    if knobs.block_tokens != deployment.engine.block_tokens:
        flags += ["--page-size", str(knobs.block_tokens)]
    if knobs.num_gpu_blocks is not None:
        flags += ["--max-total-tokens", str(knobs.num_gpu_blocks * knobs.block_tokens)]
    return flags


def _place(nodes: int, rank: int, leader: str) -> tuple[str, ...]:
    """One replica over several nodes: every node runs the command with its own rank."""
    return ("--nnodes", str(nodes), "--node-rank", str(rank), "--dist-init-addr", f"{leader}:{DIST_PORT}")


def _endpoint(port: int, answers: bool) -> tuple[str, ...]:
    """Where requests come in: SGLang listens to its own machine alone unless told otherwise."""
    return ("--host", "0.0.0.0", "--port", str(port)) if answers else ()


SGLANG: Final = Dialect(
    engine="sglang",
    title="SGLang",
    words=_words,
    place=_place,
    endpoint=_endpoint,
    made_while_loading={"fp8": "fp8"},
)

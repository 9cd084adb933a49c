"""The commands that start a deployment under vLLM.

Flags as in vLLM 0.32 (vllm/engine/arg_utils.py and vllm/config/ of that release, read 2026-11). There
`--quantization fp8` only loads FP8 checkpoints; a 16-bit checkpoint is quantised while loading by `fp8_per_tensor`.
Expert parallelism is on or off: its group is all of a stage's TP x DP GPUs.
"""

import shlex
from dataclasses import dataclass
from typing import Final

from trilemma.deployment.spec import Deployment
from trilemma.errors import UnsupportedError

FIRST_PORT: Final = 8000
SIXTEEN_BITS: Final = frozenset({"bf16", "fp16"})
# Weight format wanted of a 16-bit checkpoint -> what vLLM makes of it while loading. Four-bit formats need calibration
# and therefore a checkpoint of their own.
QUANTISED_WHILE_LOADING: Final = {"fp8": "fp8_per_tensor"}
VISIBLE_GPUS: Final = {"amd": "HIP_VISIBLE_DEVICES"}
MASTER: Final = "NODE_ADDRESS"
MASTER_PORT: Final = 29501


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchCommand:
    """One process to start: on which node (0 the first), which of its GPUs, and the command's words."""

    node: int
    gpus: tuple[int, ...]
    visible_gpus_variable: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The command as a shell takes it, one flag a line."""
        visible = f"{self.visible_gpus_variable}={','.join(map(str, self.gpus))}"
        lines = [[visible, *self.words[:3]]]
        for word in self.words[3:]:
            if word.startswith("--"):
                lines.append([word])
            else:
                lines[-1].append(word)
        return " \\\n  ".join(shlex.join(line) for line in lines)


def vllm_commands(
    deployment: Deployment, *, checkpoint: str | None = None, prefix_caching: bool = False
) -> tuple[LaunchCommand, ...]:
    """The commands of all replicas, packed onto nodes in order; a replica larger than a node has one command per node.

    `checkpoint` is what vLLM loads (a repository or folder; default: the model's own name, or a folder named for the
    wanted format where vLLM cannot make that format from the published checkpoint). `prefix_caching` as simulated.
    Raises UnsupportedError for what vLLM has no flag for.
    """
    if deployment.engine.name != "vllm":
        raise UnsupportedError(f"no launch command for {deployment.engine.title}: only vLLM's flags are known here")
    gpus, per_node = deployment.parallelism.gpus, deployment.accelerator.gpus_per_node
    variable = VISIBLE_GPUS.get(deployment.accelerator.vendor.lower(), "CUDA_VISIBLE_DEVICES")
    words = _words(deployment, checkpoint=checkpoint, prefix_caching=prefix_caching)
    if gpus > per_node and gpus % per_node:
        raise UnsupportedError(f"vLLM spreads a replica over whole nodes: {gpus} GPUs are no multiple of {per_node}")
    nodes, slots = max(1, gpus // per_node), max(1, per_node // gpus)
    commands = []
    for replica in range(deployment.replicas):
        node, slot = divmod(replica, slots)
        first = slot * gpus
        for rank in range(nodes):
            places = _node_flags(nodes, rank) if nodes > 1 else ()
            command = LaunchCommand(
                node=node * nodes + rank,
                gpus=tuple(range(first, first + min(gpus, per_node))),
                visible_gpus_variable=variable,
                words=(*words, *places, *_endpoint(FIRST_PORT + slot, headless=rank > 0)),
            )
            commands.append(command)
    return tuple(commands)


def vllm_script(deployment: Deployment, *, checkpoint: str | None = None, prefix_caching: bool = False) -> str:
    """A shell script with every command of `vllm_commands`, and what else has to be known to start it."""
    commands = vllm_commands(deployment, checkpoint=checkpoint, prefix_caching=prefix_caching)
    lines = [f"# vLLM, {deployment.replicas} x {deployment.parallelism.gpus} GPUs of {deployment.accelerator.title}"]
    if note := checkpoint_note(deployment, checkpoint=checkpoint):
        lines.append(f"# {note}")
    if deployment.parallelism.gpus > deployment.accelerator.gpus_per_node:
        lines.append(f"# {MASTER}: the address of the replica's first node, reachable from its other nodes")
    if deployment.replicas > 1:
        lines.append("# a router in front hands requests to the replicas in turn, as simulated")
    for command in commands:
        lines += ["", f"# node {command.node}", f"{command.text} &" if len(commands) > 1 else command.text]
    return "\n".join(lines) + "\n"


def vllm_summary(deployment: Deployment, *, checkpoint: str | None = None, prefix_caching: bool = False) -> str:
    """The first replica's command, and in what the commands of the others differ: `vllm_script` for people."""
    commands = vllm_commands(deployment, checkpoint=checkpoint, prefix_caching=prefix_caching)
    lines = []
    if note := checkpoint_note(deployment, checkpoint=checkpoint):
        lines.append(f"# {note}")
    per_replica = len(commands) // deployment.replicas
    lines += [command.text for command in commands[:per_replica]]
    if deployment.replicas > 1:
        lines.append("# the other replicas alike, behind a router that hands requests out in turn:")
    for command in commands[per_replica:]:
        gpus = ",".join(map(str, command.gpus))
        port = command.words[command.words.index("--port") + 1] if "--port" in command.words else "-"
        lines.append(f"#   node {command.node}: {command.visible_gpus_variable}={gpus} --port {port}")
    return "\n".join(lines) + "\n"


def checkpoint_note(deployment: Deployment, *, checkpoint: str | None = None) -> str:
    """What the user must know about the weights that are loaded; empty where the published checkpoint serves as is.

    Online FP8 keeps the router, the embedding and the head in 16 bits, as the catalogue's FP8 does.
    """
    wanted, published = deployment.precision.name, deployment.model.precision
    if checkpoint is not None or _same(wanted, published):
        return ""
    if _online(deployment):
        return f"{wanted} is made from the {published} checkpoint while loading; a {wanted} checkpoint starts faster"
    return (
        f"{_checkpoint(deployment)} stands for a checkpoint in {wanted}: vLLM cannot make it from the published "
        f"{published} one while loading; quantise it with LLM Compressor or ModelOpt, or name one already made"
    )


def _same(wanted: str, published: str) -> bool:
    return wanted == published or {wanted, published} <= SIXTEEN_BITS


def _online(deployment: Deployment) -> bool:
    """Whether vLLM makes the wanted format from the published checkpoint while loading."""
    return deployment.model.precision in SIXTEEN_BITS and deployment.precision.name in QUANTISED_WHILE_LOADING


def _checkpoint(deployment: Deployment) -> str:
    """What vLLM loads where the user names nothing."""
    wanted, model = deployment.precision.name, deployment.model
    if _same(wanted, model.precision) or _online(deployment):
        return model.name
    return f"./{model.name.rsplit('/', 1)[-1]}-{wanted}"


def _words(deployment: Deployment, *, checkpoint: str | None, prefix_caching: bool) -> tuple[str, ...]:
    """The words that all processes of all replicas share."""
    parallelism, knobs = deployment.parallelism, deployment.knobs
    words = ["vllm", "serve", checkpoint or _checkpoint(deployment)]
    words += ["--tensor-parallel-size", str(parallelism.tensor)]
    if parallelism.pipeline > 1:
        words += ["--pipeline-parallel-size", str(parallelism.pipeline)]
    if parallelism.data > 1:
        words += ["--data-parallel-size", str(parallelism.data)]
    if parallelism.expert > 1:
        if parallelism.expert != parallelism.stage_gpus:
            raise UnsupportedError(
                f"vLLM spreads experts over all {parallelism.stage_gpus} GPUs of a stage or over none: "
                f"expert parallelism {parallelism.expert} has no flag"
            )
        words += ["--enable-expert-parallel"]
    if checkpoint is None and not _same(deployment.precision.name, deployment.model.precision) and _online(deployment):
        words += ["--quantization", QUANTISED_WHILE_LOADING[deployment.precision.name]]
    words += _kv_flags(deployment)
    words += ["--max-num-batched-tokens", str(knobs.max_num_batched_tokens), "--max-num-seqs", str(knobs.max_num_seqs)]
    words += ["--gpu-memory-utilization", f"{knobs.gpu_memory_utilization:g}"]
    if knobs.max_model_len is not None:
        words += ["--max-model-len", str(knobs.max_model_len)]
    words += ["--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"]
    words += [] if knobs.cuda_graphs else ["--enforce-eager"]
    if deployment.speculative_mtp:
        words += ["--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}']
    return tuple(words)


def _kv_flags(deployment: Deployment) -> list[str]:
    """The KV cache's format and blocks, where they differ from what vLLM chooses itself."""
    knobs, flags = deployment.knobs, []
    if deployment.kv_bytes_per_element == 1:
        flags += ["--kv-cache-dtype", "fp8"]
    elif deployment.kv_bytes_per_element != 2:
        raise UnsupportedError(f"no vLLM flag for a KV cache of {deployment.kv_bytes_per_element:g} bytes an element")
    if knobs.block_tokens != deployment.engine.block_tokens:
        flags += ["--block-size", str(knobs.block_tokens)]
    if knobs.num_gpu_blocks is not None:
        flags += ["--num-gpu-blocks-override", str(knobs.num_gpu_blocks)]
    return flags


def _node_flags(nodes: int, rank: int) -> tuple[str, ...]:
    """One replica over several nodes: every node runs the command with its own rank."""
    places = ("--nnodes", str(nodes), "--node-rank", str(rank))
    return (*places, "--master-addr", MASTER, "--master-port", str(MASTER_PORT))


def _endpoint(port: int, *, headless: bool) -> tuple[str, ...]:
    """Where requests come in; the further nodes of a replica answer none."""
    return ("--headless",) if headless else ("--port", str(port))

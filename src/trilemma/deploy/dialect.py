"""What engines' launches have in common: commands packed onto nodes, checkpoints, and what a dialect must say."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trilemma.deployment.spec import Deployment
from trilemma.errors import UnsupportedError

FIRST_PORT: Final = 8000
SIXTEEN_BITS: Final = frozenset({"bf16", "fp16"})
VISIBLE_GPUS: Final = {"amd": "HIP_VISIBLE_DEVICES"}
LEADER: Final = "NODE_ADDRESS"


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
        lines = [[f"{self.visible_gpus_variable}={','.join(map(str, self.gpus))}"]]
        for word in self.words:
            if word.startswith("--"):
                lines.append([word])
            else:
                lines[-1].append(word)
        return " \\\n  ".join(shlex.join(line) for line in lines)

    @property
    def port(self) -> str:
        """The port it answers on; a dash where it answers nobody."""
        return self.words[self.words.index("--port") + 1] if "--port" in self.words else "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a deployment is launched: the user's own checkpoint (None: see `checkpoint_of`), whether prefixes are kept,
    where the weights lie (empty: at the checkpoint's name), and the name that clients ask for (empty: the engine's own
    choice)."""

    checkpoint: str | None
    prefix_caching: bool
    location: str = ""
    served_name: str = ""


def way_of(deployment: Deployment, checkpoint: str | None = None, prefix_caching: bool | None = None) -> Way:
    """The way with prefix caching as the deployment has it unless told otherwise."""
    caches = deployment.knobs.prefix_caching if prefix_caching is None else prefix_caching
    return Way(checkpoint=checkpoint, prefix_caching=caches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one engine is told what to do.

    `words` are those all its processes share. `place` are those of node `rank` of `nodes`, given the leader's address;
    `endpoint` where requests come in, given port and whether the node answers any. `made_while_loading` maps a weight
    format wanted of a 16-bit checkpoint to the option that makes it. `config` are the contents of its YAML (None: it
    has none). `shared_launch`: one command starts all nodes of a replica.
    """

    engine: str
    title: str
    words: Callable[[Deployment, Way], tuple[str, ...]]
    place: Callable[[int, int, str], tuple[str, ...]]
    endpoint: Callable[[int, bool], tuple[str, ...]]
    made_while_loading: Mapping[str, str]
    config: Callable[[Deployment, Way], dict[str, Any]] | None = None
    shared_launch: Callable[[tuple[str, ...], Deployment], tuple[str, ...]] | None = None


def nodes_of(deployment: Deployment) -> int:
    """Nodes of one replica. UnsupportedError where it would take a part of a node beside whole ones."""
    gpus, per_node = deployment.parallelism.gpus, deployment.accelerator.gpus_per_node
    if gpus > per_node and gpus % per_node:
        title = deployment.engine.title
        raise UnsupportedError(f"{title} spreads a replica over whole nodes: {gpus} GPUs are no multiple of {per_node}")
    return max(1, gpus // per_node)


def commands_of(dialect: Dialect, deployment: Deployment, way: Way) -> tuple[LaunchCommand, ...]:
    """The commands of all replicas, packed onto nodes in order; a replica larger than a node has one command per node,
    or one in all where the engine starts its nodes itself. UnsupportedError for what the engine has no option for."""
    check_engine(dialect, deployment)
    gpus, per_node = deployment.parallelism.gpus, deployment.accelerator.gpus_per_node
    words, nodes, slots = dialect.words(deployment, way), nodes_of(deployment), max(1, per_node // gpus)
    variable = VISIBLE_GPUS.get(deployment.accelerator.vendor.lower(), "CUDA_VISIBLE_DEVICES")
    commands = []
    for replica in range(deployment.replicas):
        node, slot = divmod(replica, slots)
        first, port = slot * gpus, FIRST_PORT + slot
        whole = nodes > 1 and dialect.shared_launch is not None
        for rank in range(1 if whole else nodes):
            place = dialect.place(nodes, rank, LEADER) if nodes > 1 and not whole else ()
            said = (*words, *place, *dialect.endpoint(port, rank == 0))
            command = LaunchCommand(
                node=node * nodes + rank,
                gpus=tuple(range(first, first + min(gpus, per_node))),
                visible_gpus_variable=variable,
                words=dialect.shared_launch(said, deployment) if whole and dialect.shared_launch else said,
            )
            commands.append(command)
    return tuple(commands)


def check_engine(dialect: Dialect, deployment: Deployment) -> None:
    """UnsupportedError where the deployment is of another engine, or not for this vendor's GPUs."""
    engine, accelerator = deployment.engine, deployment.accelerator
    if engine.name != dialect.engine:
        raise UnsupportedError(
            f"the deployment runs {engine.title}, whose scheduler and memory rule {dialect.title} does not share: "
            f"plan with space.engines=[{dialect.engine}] for its launch"
        )
    if not engine.runs_on(accelerator):
        raise UnsupportedError(f"{engine.title} does not run on {accelerator.title}")


def same_format(wanted: str, published: str) -> bool:
    """Whether weights in the published format serve where another is wanted."""
    return wanted == published or {wanted, published} <= SIXTEEN_BITS


def is_made_while_loading(dialect: Dialect, deployment: Deployment) -> bool:
    """Whether the engine makes the wanted format from the published checkpoint while loading."""
    wanted, published = deployment.precision.name, deployment.model.precision
    return not same_format(wanted, published) and published in SIXTEEN_BITS and wanted in dialect.made_while_loading


def checkpoint_of(dialect: Dialect, deployment: Deployment) -> str:
    """What is loaded where the user names nothing: the model itself, or a folder named for the wanted format."""
    wanted, model = deployment.precision.name, deployment.model
    if same_format(wanted, model.precision) or is_made_while_loading(dialect, deployment):
        return model.name
    return f"./{model.name.rsplit('/', 1)[-1]}-{wanted}"


def loaded(dialect: Dialect, deployment: Deployment, way: Way) -> str:
    """What the command names as the weights."""
    return way.location or way.checkpoint or checkpoint_of(dialect, deployment)


def checkpoint_words(dialect: Dialect, deployment: Deployment) -> str:
    """What the user must know about the weights that are loaded; empty where the published checkpoint serves as is.

    Formats made while loading keep the router, the embedding and the head in 16 bits, as the catalogue's do.
    """
    wanted, published = deployment.precision.name, deployment.model.precision
    if same_format(wanted, published):
        return ""
    if is_made_while_loading(dialect, deployment):
        return f"{wanted} is made from the {published} checkpoint while loading; a {wanted} checkpoint starts faster"
    return (
        f"{checkpoint_of(dialect, deployment)} stands for a checkpoint in {wanted}: {dialect.title} cannot make it "
        f"from the published {published} one while loading; quantise it with LLM Compressor or ModelOpt, or name one "
        "already made"
    )

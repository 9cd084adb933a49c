"""Launch commands as a shell script, and as a few lines for people."""

from trilemma.deploy.dialect import LEADER, Dialect, Way, checkpoint_words, commands_of, nodes_of
from trilemma.deploy.yaml_text import yaml_text
from trilemma.deployment.spec import Deployment

CONFIG_END = "END_OF_CONFIG"


def script(dialect: Dialect, deployment: Deployment, way: Way) -> str:
    """A shell script with every command, and what else has to be known to start it."""
    commands = commands_of(dialect, deployment, way)
    gpus, accelerator = deployment.parallelism.gpus, deployment.accelerator
    lines = [f"# {dialect.title}, {deployment.replicas} x {gpus} GPUs of {accelerator.title}"]
    lines += _notes(dialect, deployment, way)
    if nodes_of(deployment) > 1:
        lines.append(_about_nodes(dialect))
    if deployment.replicas > 1:
        lines.append("# a router in front hands requests to the replicas in turn, as simulated")
    lines += _config(dialect, deployment, way)
    for command in commands:
        lines += ["", f"# node {command.node}", f"{command.text} &" if len(commands) > 1 else command.text]
    return "\n".join(lines) + "\n"


def summary(dialect: Dialect, deployment: Deployment, way: Way) -> str:
    """The first replica's command, and in what the commands of the others differ: `script` for people."""
    commands = commands_of(dialect, deployment, way)
    per_replica = len(commands) // deployment.replicas
    lines = [*_notes(dialect, deployment, way), *_config(dialect, deployment, way)]
    lines += [command.text for command in commands[:per_replica]]
    if deployment.replicas > 1:
        lines.append("# the other replicas alike, behind a router that hands requests out in turn:")
    for command in commands[per_replica:]:
        gpus = ",".join(map(str, command.gpus))
        lines.append(f"#   node {command.node}: {command.visible_gpus_variable}={gpus} --port {command.port}")
    return "\n".join(lines) + "\n"


def _notes(dialect: Dialect, deployment: Deployment, way: Way) -> list[str]:
    note = "" if way.checkpoint is not None else checkpoint_words(dialect, deployment)
    return [f"# {note}"] if note else []


def _about_nodes(dialect: Dialect) -> str:
    if dialect.shared_launch is not None:
        return "# NODE_0, NODE_1, ...: the addresses of the replica's nodes; mpirun reaches each without a password"
    return f"# {LEADER}: the address of the replica's first node, reachable from its other nodes"


def _config(dialect: Dialect, deployment: Deployment, way: Way) -> list[str]:
    """Shell lines that write the engine's YAML; none where it has none."""
    if dialect.config is None:
        return []
    text = yaml_text(dialect.config(deployment, way)).rstrip()
    return [f"cat > trtllm.yaml <<'{CONFIG_END}'", *text.splitlines(), CONFIG_END]

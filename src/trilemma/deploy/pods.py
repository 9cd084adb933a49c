"""Pods of one replica: containers with the engine's command, GPUs, probes and volumes."""

from collections.abc import Sequence
from typing import Any, Final

from trilemma.deploy.launch import dialect_of
from trilemma.deploy.rollout import PORT, Rollout
from trilemma.deploy.trtllm import CONFIG_FILE, trtllm_config
from trilemma.deploy.yaml_text import yaml_text
from trilemma.errors import UnsupportedError

Manifest = dict[str, Any]

MODELS: Final = "/models"
CONFIG_FOLDER: Final = "/etc/trtllm"
PROBE_EVERY_S: Final = 10
HEALTH: Final = "/health"
DRAIN_S: Final = 300  # of an old pod: longer than answers take
# What LeaderWorkerSet tells each pod of a group; Kubernetes puts the values into the command.
GROUP_LEADER: Final = "$(LWS_LEADER_ADDRESS)"
GROUP_RANK: Final = "$(LWS_WORKER_INDEX)"
CPUS_OF_A_GPU, MEMORY_GIB_OF_A_GPU = 4, 24  # requested; engines take little more while they serve


def words_of(rollout: Rollout, *, location: str = "", rank: int = 0) -> list[str]:
    """The words that a machine's container runs; `location` is where weights lie if others bring them there."""
    deployment, dialect = rollout.deployment, dialect_of(rollout.deployment)
    words = list(dialect.words(deployment, rollout.way(MODELS, location=location)))
    if dialect.config is not None:
        words = [f"{CONFIG_FOLDER}/{CONFIG_FILE}" if word == CONFIG_FILE else word for word in words]
    if rollout.nodes > 1:
        if dialect.shared_launch is not None:
            raise UnsupportedError(
                f"{dialect.title} starts a replica of {rollout.nodes} machines with mpirun from one of them: no "
                "manifest is written for that; --target trtllm has the command"
            )
        place = list(dialect.place(rollout.nodes, rank, GROUP_LEADER))
        if rank:
            place[place.index("--node-rank") + 1] = GROUP_RANK
        words += place
    endpoint = dialect.endpoint(PORT, rank == 0)
    host = ["--host", "0.0.0.0"] if rank == 0 and "--host" not in endpoint else []
    return [*words, *host, *endpoint]


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(command, args): the program with what it serves, and its options."""
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return list(words[:first]), list(words[first:])


def container(
    rollout: Rollout, *, name: str = "engine", location: str = "", rank: int = 0, weights: bool = True
) -> Manifest:
    """A machine's container. Only the first of a replica answers requests and is probed; `weights`: it reads them from
    the volume for weights."""
    command, args = split(words_of(rollout, location=location, rank=rank))
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    if weights:
        mounts.append({"name": "weights", "mountPath": MODELS})
    if has_config(rollout):
        mounts.append({"name": "config", "mountPath": CONFIG_FOLDER})
    made: Manifest = {
        "name": name,
        "image": rollout.image_name,
        "command": command,
        "args": args,
        "env": _environment(weights=weights),
        "resources": resources(rollout),
        "volumeMounts": mounts,
    }
    if rank == 0:
        made["ports"] = [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]
        made |= probes(rollout)
    return made


def _environment(*, weights: bool) -> list[Manifest]:
    """The token for checkpoints behind a licence, from a secret that may be missing; where downloads are kept."""
    secret = {"name": "hf-token", "key": "token", "optional": True}
    token: Manifest = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}}
    return [{"name": "HF_HOME", "value": f"{MODELS}/huggingface"}, token] if weights else [token]


def resources(rollout: Rollout) -> Manifest:
    """GPUs, and the processors and memory that feed them."""
    gpus = rollout.gpus_per_pod
    asked = {
        "cpu": str(CPUS_OF_A_GPU * gpus),
        "memory": f"{MEMORY_GIB_OF_A_GPU * gpus + rollout.shared_memory_gib}Gi",
        rollout.gpu_resource: str(gpus),
    }
    return {"requests": asked, "limits": {rollout.gpu_resource: str(gpus)}}


def probes(rollout: Rollout) -> Manifest:
    """A start that may take as long as loading does, then short probes."""
    get = {"path": HEALTH, "port": PORT}
    often = {"httpGet": get, "periodSeconds": PROBE_EVERY_S, "timeoutSeconds": 5}
    return {
        "startupProbe": often | {"failureThreshold": rollout.start_s // PROBE_EVERY_S},
        "readinessProbe": often | {"failureThreshold": 3},
        "livenessProbe": often | {"timeoutSeconds": 20, "failureThreshold": 6},  # a busy engine answers late
    }


def pod_spec(rollout: Rollout, containers: list[Manifest], *, weights: bool = True) -> Manifest:
    """A pod's specification around its containers."""
    volumes: list[Manifest] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{rollout.shared_memory_gib}Gi"}}
    ]
    if weights:
        volumes.append({"name": "weights", "persistentVolumeClaim": {"claimName": f"{rollout.name}-weights"}})
    if has_config(rollout):
        volumes.append({"name": "config", "configMap": {"name": f"{rollout.name}-config"}})
    return {
        # A service called vllm would otherwise set VLLM_PORT in every pod, and vLLM would read it.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_S,
        "tolerations": [{"key": rollout.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": containers,
        "volumes": volumes,
    }


def labels(rollout: Rollout) -> dict[str, str]:
    """What all objects of a rollout have in common."""
    return {"app.kubernetes.io/name": rollout.name, "app.kubernetes.io/component": "inference"}


def scraping(rollout: Rollout) -> dict[str, str]:
    """Annotations that tell Prometheus where a pod's metrics are."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": rollout.table.metrics_path,
    }


def has_config(rollout: Rollout) -> bool:
    """Whether the engine reads a YAML of its own."""
    return dialect_of(rollout.deployment).config is not None


def config_text(rollout: Rollout) -> str:
    """The engine's YAML."""
    return yaml_text(trtllm_config(rollout.deployment, rollout.way(MODELS)))


def config_map(rollout: Rollout) -> list[Manifest]:
    """The engine's YAML as an object of the cluster; none where it has none."""
    if not has_config(rollout):
        return []
    meta = {"name": f"{rollout.name}-config", "labels": labels(rollout)}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {CONFIG_FILE: config_text(rollout)}}]

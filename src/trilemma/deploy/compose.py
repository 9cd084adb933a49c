"""A docker-compose file: all replicas of a deployment on one machine, each with its GPUs and its port."""

from typing import Final

from trilemma.deploy.dialect import FIRST_PORT
from trilemma.deploy.pods import (
    CONFIG_FOLDER,
    HEALTH,
    MODELS,
    Manifest,
    config_text,
    has_config,
    split,
    words_of,
)
from trilemma.deploy.rollout import PORT, Rollout
from trilemma.deploy.trtllm import CONFIG_FILE
from trilemma.errors import UnsupportedError

# Not every image has curl; all have Python.
ASK_HEALTH: Final = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}{HEALTH}', timeout=5)"


def compose_file(rollout: Rollout) -> Manifest:
    """The file's contents. UnsupportedError where the deployment takes more than one machine."""
    deployment, per_node = rollout.deployment, rollout.deployment.accelerator.gpus_per_node
    gpus = rollout.gpus_per_pod
    if rollout.nodes > 1 or deployment.replicas > per_node // gpus:
        raise UnsupportedError(
            f"compose starts one machine: {deployment.replicas} x {deployment.parallelism.gpus} GPUs of "
            f"{deployment.accelerator.title} take more than its {per_node}; --target kubernetes has them all"
        )
    made: Manifest = {
        "name": rollout.name,
        "services": {f"replica-{i}": _service(rollout, i) for i in range(deployment.replicas)},
        "volumes": {"weights": {}},
    }
    if has_config(rollout):
        made["configs"] = {"trtllm": {"content": config_text(rollout)}}
    return made


def _service(rollout: Rollout, replica: int) -> Manifest:
    """One replica with its own GPUs, answering on a port of its own."""
    gpus = [str(replica * rollout.gpus_per_pod + i) for i in range(rollout.gpus_per_pod)]
    # Compose puts variables where a dollar stands, unless it is doubled.
    command, args = split([word.replace("$", "$$") for word in words_of(rollout)])
    made: Manifest = {
        "image": rollout.image_name,
        "entrypoint": command,
        "command": args,
        "environment": {"HF_HOME": f"{MODELS}/huggingface", "HF_TOKEN": "${HF_TOKEN:-}"},
        "ports": [f"{FIRST_PORT + replica}:{PORT}"],
        "volumes": [f"weights:{MODELS}"],
        "shm_size": f"{rollout.shared_memory_gib}gb",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "restart": "unless-stopped",
        "stop_grace_period": "5m",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", ASK_HEALTH],
            "interval": "10s",
            "timeout": "10s",
            "retries": 6,
            "start_period": f"{rollout.start_s}s",
        },
    }
    if has_config(rollout):
        made["configs"] = [{"source": "trtllm", "target": f"{CONFIG_FOLDER}/{CONFIG_FILE}"}]
    if rollout.gpu_resource == "amd.com/gpu":
        made["environment"] |= {"HIP_VISIBLE_DEVICES": ",".join(gpus)}
        made |= {"devices": ["/dev/kfd", "/dev/dri"], "group_add": ["video", "render"]}
        return made
    device = {"driver": "nvidia", "device_ids": gpus, "capabilities": ["gpu"]}
    return made | {"deploy": {"resources": {"reservations": {"devices": [device]}}}}

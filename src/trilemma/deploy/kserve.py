"""KServe's forms: an LLMInferenceService where vLLM serves, an InferenceService with a container where others do."""

from typing import Final

from trilemma.deploy.launch import dialect_of
from trilemma.deploy.pods import Manifest, config_map, container, labels, pod_spec
from trilemma.deploy.rollout import Rollout
from trilemma.errors import UnsupportedError

WEIGHTS: Final = "/mnt/models"  # where KServe's storage initialiser puts them


def kserve_objects(rollout: Rollout) -> list[Manifest]:
    """Everything that `kubectl apply` needs beside KServe itself. UnsupportedError for what it has no form for."""
    if rollout.deployment.engine.name == "vllm":
        return [_llm_service(rollout)]
    return [*config_map(rollout), _service(rollout)]


def weights_uri(rollout: Rollout) -> str:
    """Where KServe fetches the weights from; a checkpoint that is to be made lies on a volume."""
    folder = rollout.checkpoint_folder
    if folder is not None:
        return f"pvc://{rollout.name}-weights/{folder}"
    name = rollout.checkpoint or rollout.deployment.model.name
    if "://" in name:
        return name
    if name.startswith(("/", ".")):
        raise UnsupportedError(f"KServe fetches weights by address: {name} is a folder (pvc://CLAIM/FOLDER names one)")
    return f"hf://{name}"


def _llm_service(rollout: Rollout) -> Manifest:
    """vLLM with our command in place of the one KServe would make up."""
    spread = rollout.deployment.parallelism
    spec: Manifest = {
        "model": {"uri": weights_uri(rollout), "name": rollout.deployment.model.name},
        "replicas": rollout.deployment.replicas,
        "parallelism": {
            "tensor": spread.tensor,
            "pipeline": spread.pipeline,
            **({"data": spread.data, "dataLocal": spread.data // rollout.nodes or 1} if spread.data > 1 else {}),
            **({"expert": True} if spread.expert > 1 else {}),
        },
        "router": {"route": {}, "gateway": {}, "scheduler": {}},
        "template": _pod(rollout, "main"),
    }
    if rollout.nodes > 1:
        spec["worker"] = _pod(rollout, "main", rank=1)
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": rollout.name, "labels": labels(rollout)},
        "spec": spec,
    }


def _service(rollout: Rollout) -> Manifest:
    if rollout.nodes > 1:
        raise UnsupportedError(
            f"KServe's InferenceService with {dialect_of(rollout.deployment).title} in a container holds one machine: "
            f"a replica takes {rollout.nodes}; --target kubernetes has a LeaderWorkerSet"
        )
    predictor = {
        "minReplicas": rollout.deployment.replicas,  # scaling by requests is KEDA's: --target keda
        "maxReplicas": rollout.deployment.replicas,
        "storageUris": [{"uri": weights_uri(rollout), "mountPath": WEIGHTS}],
        **_pod(rollout, "kserve-container"),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": rollout.name, "labels": labels(rollout)},
        "spec": {"predictor": predictor},
    }


def _pod(rollout: Rollout, name: str, *, rank: int = 0) -> Manifest:
    made = container(rollout, name=name, location=WEIGHTS, rank=rank, weights=False)
    return pod_spec(rollout, [made], weights=False)

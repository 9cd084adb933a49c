"""Kubernetes objects of a rollout: replicas, the service in front, what protects them, where weights lie."""

from trilemma.deploy.pods import Manifest, config_map, container, labels, pod_spec, scraping
from trilemma.deploy.rollout import PORT, Rollout

LEADER_LABEL = {"role": "leader"}


def kubernetes_objects(rollout: Rollout) -> list[Manifest]:
    """Everything that `kubectl apply` needs. UnsupportedError for what no pod can hold."""
    return [weights_claim(rollout), *config_map(rollout), replicas(rollout), service(rollout), budget(rollout)]


def replicas(
    rollout: Rollout, *, name: str = "", more_labels: dict[str, str] | None = None, container_name: str = "engine"
) -> Manifest:
    """A Deployment where a replica fits a machine, a LeaderWorkerSet where it takes several."""
    made_of = _group if rollout.nodes > 1 else _single
    return made_of(rollout, name or rollout.name, labels(rollout) | (more_labels or {}), container_name)


def workload_kind(rollout: Rollout) -> tuple[str, str]:
    """(apiVersion, kind) of what holds the replicas."""
    if rollout.nodes > 1:
        return "leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"
    return "apps/v1", "Deployment"


def _single(rollout: Rollout, name: str, marks: dict[str, str], container_name: str) -> Manifest:
    version, kind = workload_kind(rollout)
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": marks},
        "spec": {
            "replicas": rollout.deployment.replicas,
            "selector": {"matchLabels": marks},
            # GPUs are scarce: a new pod takes the place of an old one.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "progressDeadlineSeconds": 2 * rollout.start_s,
            "template": {
                "metadata": {"labels": marks, "annotations": scraping(rollout)},
                "spec": pod_spec(rollout, [container(rollout, name=container_name)]),
            },
        },
    }


def _group(rollout: Rollout, name: str, marks: dict[str, str], container_name: str) -> Manifest:
    """One group of pods a replica; the first answers, all start and fall together."""
    version, kind = workload_kind(rollout)
    leader = {
        "metadata": {"labels": marks | LEADER_LABEL, "annotations": scraping(rollout)},
        "spec": pod_spec(rollout, [container(rollout, name=container_name)]),
    }
    worker = {
        "metadata": {"labels": marks | {"role": "worker"}},
        "spec": pod_spec(rollout, [container(rollout, name=container_name, rank=1)]),
    }
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": marks},
        "spec": {
            "replicas": rollout.deployment.replicas,
            "leaderWorkerTemplate": {
                "size": rollout.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": leader,
                "workerTemplate": worker,
            },
        },
    }


def answering(rollout: Rollout) -> dict[str, str]:
    """Labels of the pods that answer requests."""
    return labels(rollout) | (LEADER_LABEL if rollout.nodes > 1 else {})


def service(rollout: Rollout) -> Manifest:
    """One address for all replicas."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": rollout.name, "labels": labels(rollout)},
        "spec": {
            "type": "ClusterIP",
            "selector": answering(rollout),
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def budget(rollout: Rollout) -> Manifest:
    """Drained nodes take one replica at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": rollout.name, "labels": labels(rollout)},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": answering(rollout)}},
    }


def weights_claim(rollout: Rollout) -> Manifest:
    """A volume that all replicas read weights from, and the first to start downloads them to."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{rollout.name}-weights", "labels": labels(rollout)},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": f"{rollout.volume_gib}Gi"}},
        },
    }

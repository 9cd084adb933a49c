"""A KEDA ScaledObject: how many replicas, from the requests that they hold, with thresholds from the simulated knee."""

from typing import Final

from trilemma.deploy.kubernetes import workload_kind
from trilemma.deploy.pods import Manifest, labels
from trilemma.deploy.rollout import Rollout
from trilemma.errors import UnsupportedError

PROMETHEUS: Final = "http://prometheus-operated.monitoring.svc:9090"
POLL_S: Final = 15
QUIET_S: Final = 600  # before replicas go: a start costs minutes


def scaled_object(rollout: Rollout, *, prometheus: str = PROMETHEUS) -> Manifest:
    """Replicas between the quietest hour's and the plan's. UnsupportedError where no knee is known.

    A trigger's threshold is per replica: KEDA asks for ceil(sum of the metric / threshold). Requests in flight size the
    fleet as the plan does; requests that wait add a replica where the batch itself is full.
    """
    knee = rollout.knee
    if knee is None:
        raise UnsupportedError(
            "no load of a replica to scale at: a plan for a batch job or a fixed number of clients has no knee"
        )
    version, kind = workload_kind(rollout)
    table = rollout.table
    in_flight = f"sum({_series(rollout, table.running)}) + sum({_series(rollout, table.waiting)})"
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": rollout.name, "labels": labels(rollout)},
        "spec": {
            "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": rollout.name},
            "minReplicaCount": rollout.least_replicas,
            "maxReplicaCount": rollout.deployment.replicas,
            "pollingInterval": POLL_S,
            "cooldownPeriod": QUIET_S,
            "fallback": {"failureThreshold": 4, "replicas": rollout.deployment.replicas},
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "behavior": {
                        "scaleUp": {"stabilizationWindowSeconds": 0},
                        "scaleDown": {
                            "stabilizationWindowSeconds": QUIET_S,
                            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
                        },
                    }
                }
            },
            "triggers": [
                _trigger("in-flight", in_flight, knee.target_in_flight, prometheus),
                _trigger("waiting", f"sum({_series(rollout, table.waiting)})", knee.target_waiting, prometheus),
            ],
        },
    }


def _series(rollout: Rollout, metric: str) -> str:
    """A gauge of this rollout's replicas alone: by the model's name where the engine says it, else by the service."""
    if rollout.deployment.engine.name == "trtllm":
        return f'{metric}{{service="{rollout.name}"}}'
    return f'{metric}{{model_name="{rollout.deployment.model.name}"}}'


def _trigger(name: str, query: str, threshold: float, prometheus: str) -> Manifest:
    return {
        "type": "prometheus",
        "name": name,
        "metricType": "AverageValue",
        "metadata": {"serverAddress": prometheus, "query": query, "threshold": f"{threshold:.3g}"},
    }

"""Deployments to roll out, and small schemas of the objects that Kubernetes itself does not know."""

from hypothesis import strategies as st

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.deploy.rollout import Knee, Rollout
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs

CATALOGUE = load_catalogue()
LLAMA, DEEPSEEK = "meta-llama/Meta-Llama-3.1-70B", "deepseek-ai/DeepSeek-V3"
KNEE = Knee(rps=2.0, running=24.0, waiting=1.0, headroom=0.25)


def deployment(
    engine="vllm", model=LLAMA, precision="bf16", accelerator="h100_sxm", *, replicas=1, kv=2.0, mtp=False, knobs=None,
    **parallelism,
):  # fmt: skip
    row = CATALOGUE.engine(engine)
    usual = {"block_tokens": row.block_tokens, "gpu_memory_utilization": row.gpu_memory_utilization}
    found = CATALOGUE.model(model)
    return Deployment(
        model=found,
        precision=CATALOGUE.precision(precision, model=found),
        accelerator=CATALOGUE.accelerator(accelerator),
        engine=row,
        parallelism=Parallelism(**parallelism),
        knobs=SchedulerKnobs(max_num_batched_tokens=8192, max_num_seqs=256, **(usual | (knobs or {}))),
        kv_bytes_per_element=kv,
        replicas=replicas,
        speculative_mtp=mtp,
    )


def rollout(*args, name="chat", prefix_caching=False, checkpoint=None, image=None, knee=KNEE, least=1, **more):
    return Rollout(
        name=name, deployment=deployment(*args, **more), prefix_caching=prefix_caching, least_replicas=least,
        knee=knee, checkpoint=checkpoint, image=image,
    )  # fmt: skip


@st.composite
def any_deployment(draw, engines=("vllm", "trtllm", "sglang"), most_replicas=5):
    """Deployments that every engine has options for."""
    engine = draw(st.sampled_from(engines))
    moe = draw(st.booleans())
    tensor, data = draw(st.sampled_from([(1, 1), (2, 1), (4, 1), (8, 1), (1, 8), (1, 4)]))
    expert = tensor * data if moe and draw(st.booleans()) else 1
    pipeline = 2 if tensor == 8 and engine != "trtllm" and draw(st.booleans()) else 1
    return deployment(
        engine,
        DEEPSEEK if moe else LLAMA,
        draw(st.sampled_from(["fp8", "nvfp4"] if moe else ["bf16", "fp8", "int4"])),
        replicas=draw(st.integers(1, most_replicas)),
        kv=draw(st.sampled_from([1.0, 2.0])),
        mtp=moe and draw(st.booleans()),
        knobs={
            "max_model_len": draw(st.sampled_from([None, 8192])),
            "num_gpu_blocks": draw(st.sampled_from([None, 1000])),
            "block_tokens": draw(st.sampled_from([CATALOGUE.engine(engine).block_tokens, 64])),
            "cuda_graphs": draw(st.booleans()),
            "prefix_caching": draw(st.booleans()),
        },
        tensor=tensor, data=data, expert=expert, pipeline=pipeline,
    )  # fmt: skip


def _object(properties, *required):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT, COUNT, ANY = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {}
META = _object({"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"}, "labels": ANY}, "name")


def _kind(version, kind, spec):
    head = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": META, "spec": spec}
    return _object(head, *head)


# After the custom resource definitions of LeaderWorkerSet 0.10, KEDA 2.20 and KServe 0.20: what we write of them. Pod
# specifications inside (ANY) are checked as pods.
SCHEMAS = {
    "LeaderWorkerSet": _kind(
        "leaderworkerset.x-k8s.io/v1",
        "LeaderWorkerSet",
        _object(
            {
                "replicas": COUNT,
                "leaderWorkerTemplate": _object(
                    {
                        "size": COUNT,
                        "restartPolicy": {"enum": ["Default", "RecreateGroupOnPodRestart", "None"]},
                        "leaderTemplate": ANY,
                        "workerTemplate": ANY,
                    },
                    "workerTemplate",
                ),
            },
            "leaderWorkerTemplate",
        ),
    ),
    "ScaledObject": _kind(
        "keda.sh/v1alpha1",
        "ScaledObject",
        _object(
            {
                "scaleTargetRef": _object({"apiVersion": TEXT, "kind": TEXT, "name": TEXT}, "name"),
                "minReplicaCount": COUNT,
                "maxReplicaCount": COUNT,
                "pollingInterval": COUNT,
                "cooldownPeriod": COUNT,
                "fallback": _object({"failureThreshold": COUNT, "replicas": COUNT}, "failureThreshold", "replicas"),
                "advanced": _object({"horizontalPodAutoscalerConfig": ANY}),
                "triggers": {
                    "type": "array",
                    "items": _object(
                        {
                            "type": {"const": "prometheus"},
                            "name": TEXT,
                            "metricType": {"enum": ["AverageValue", "Value"]},
                            "metadata": _object(
                                {"serverAddress": TEXT, "query": TEXT, "threshold": TEXT},
                                "serverAddress", "query", "threshold",
                            ),
                        },
                        "type", "metadata",
                    ),
                },
            },
            "scaleTargetRef", "triggers",
        ),
    ),
    "LLMInferenceService": _kind(
        "serving.kserve.io/v1alpha2",
        "LLMInferenceService",
        _object(
            {
                "model": _object({"uri": TEXT, "name": TEXT}, "uri"),
                "replicas": COUNT,
                "parallelism": _object(
                    {"tensor": COUNT, "pipeline": COUNT, "data": COUNT, "dataLocal": COUNT,
                     "expert": {"type": "boolean"}}
                ),
                "router": _object({"route": ANY, "gateway": ANY, "scheduler": ANY}),
                "template": ANY,
                "worker": ANY,
            },
            "model",
        ),
    ),
    "InferenceService": _kind(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        _object(
            {
                "predictor": {
                    "type": "object",
                    "properties": {
                        "minReplicas": COUNT,
                        "maxReplicas": COUNT,
                        "storageUris": {"type": "array", "items": _object({"uri": TEXT, "mountPath": TEXT}, "uri")},
                    },
                    "required": ["storageUris", "containers"],
                }
            },
            "predictor",
        ),
    ),
    "Kustomization": _object({"apiVersion": TEXT, "kind": TEXT, "resources": {"type": "array", "items": TEXT}}, "kind"),
}  # fmt: skip

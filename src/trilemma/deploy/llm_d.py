"""llm-d's form: a Kustomize folder with the model servers, labelled as its router looks for them, and the router's
values."""

from trilemma.deploy.kubernetes import budget, replicas, weights_claim
from trilemma.deploy.pods import Manifest, config_map
from trilemma.deploy.rollout import Rollout, name_of


def llm_d_files(rollout: Rollout) -> dict[str, list[Manifest]]:
    """File name -> documents. The router is llm-d's own chart, given `router.values.yaml` over its base values."""
    guide = {"llm-d.ai/guide": rollout.name}
    marks = guide | {
        "llm-d.ai/role": "decode",
        "llm-d.ai/model": name_of(rollout.deployment.model.name.rsplit("/", 1)[-1]),
        "llm-d.ai/accelerator-variant": "gpu",
        "llm-d.ai/accelerator-vendor": rollout.deployment.accelerator.vendor.lower(),
    }
    server = replicas(rollout, name=f"{rollout.name}-decode", more_labels=marks, container_name="modelserver")
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["modelserver.yaml"],
    }
    return {
        "kustomization.yaml": [kustomization],
        "modelserver.yaml": [weights_claim(rollout), *config_map(rollout), server, budget(rollout)],
        "router.values.yaml": [{"router": {"modelServers": {"matchLabels": guide}}}],
    }

"""The constants of a deployment."""

from trilemma.catalogue.efficiency import Efficiency, efficiency_for
from trilemma.catalogue.precision import Role
from trilemma.deployment.spec import Deployment
from trilemma.latency.formats import kernel_form


def efficiency_of(deployment: Deployment) -> Efficiency:
    """Those of its accelerator and engine for the kernels of its experts, or of its MLPs where it has none;
    UnsupportedError where its precision does not run."""
    role = Role.EXPERT if deployment.model.is_moe else Role.MLP
    form = kernel_form(deployment.precision, role, deployment.model, deployment.accelerator)
    return efficiency_for(deployment.accelerator, deployment.engine.name, form)

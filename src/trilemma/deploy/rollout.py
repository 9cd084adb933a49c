"""What is rolled out: a sized deployment with its name, image, checkpoint, and how far it may scale."""

import math
import re
from dataclasses import dataclass
from typing import Final

from trilemma.deploy.dialect import Way, checkpoint_of, is_made_while_loading, nodes_of, same_format
from trilemma.deploy.launch import dialect_of
from trilemma.deploy.options import OptionTable, option_table
from trilemma.deployment.spec import Deployment
from trilemma.deployment.weights import matrices
from trilemma.errors import UnsupportedError
from trilemma.units import GIB

PORT: Final = 8000
MOST_GPUS_OF_A_HOST: Final = 8  # a rack that is one link domain is one node to the planner, but many machines
LOAD_BYTES_PER_S: Final = 200e6  # of a volume or a hub that is slow: probes must outlast it
START_S: Final = 600.0  # compiling, capturing graphs, warming up
SPARE_OF_VOLUME: Final = 1.3  # a new revision beside the old one
LEAST_TARGET: Final = 0.05  # requests; a threshold of 0 asks for endless replicas
LONGEST_NAME: Final = 40  # of a label, with room for what controllers add


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """The highest load of one replica that keeps the limits: `rps` requests/s, of which `running` are in its batch and
    `waiting` in its queue on average. `headroom` is the sizing policy's margin: fleets are held at knee / (1 +
    headroom)."""

    rps: float
    running: float
    waiting: float
    headroom: float

    @property
    def target_in_flight(self) -> float:
        """Requests a replica holds when the fleet has the size it should."""
        return max(LEAST_TARGET, (self.running + self.waiting) / (1 + self.headroom))

    @property
    def target_waiting(self) -> float:
        """Requests that may wait at a replica before it is one too few."""
        return max(1.0, self.waiting)

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"knee of a replica: {self.rps:.3g} requests/s, {self.running:.3g} requests running and {self.waiting:.3g} "
            f"waiting; held at knee / {1 + self.headroom:g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A deployment as manifests are made of it; `least_replicas` serve the quietest hour. `checkpoint` and `image`
    None: the usual ones."""

    name: str
    deployment: Deployment
    prefix_caching: bool
    least_replicas: int = 1
    knee: Knee | None = None
    checkpoint: str | None = None
    image: str | None = None

    @property
    def table(self) -> OptionTable:
        """The engine's options at the pinned version."""
        return option_table(self.deployment.engine.name)

    @property
    def image_name(self) -> str:
        """The container image, with its tag."""
        return self.image or self.table.image_for(self.deployment.accelerator.vendor)

    @property
    def nodes(self) -> int:
        """Machines of one replica."""
        return nodes_of(self.deployment)

    @property
    def gpus_per_pod(self) -> int:
        """GPUs of one machine's part of a replica. UnsupportedError where no machine has as many."""
        gpus = self.deployment.parallelism.gpus // self.nodes
        if gpus > MOST_GPUS_OF_A_HOST:
            raise UnsupportedError(
                f"one replica takes {gpus} GPUs of {self.deployment.accelerator.title}, which are one link domain but "
                "several machines: no manifest is written for that"
            )
        return gpus

    @property
    def checkpoint_folder(self) -> str | None:
        """The folder that stands for a checkpoint to be made, None where what is loaded has a name."""
        if self.checkpoint is not None:
            return None
        usual = checkpoint_of(dialect_of(self.deployment), self.deployment)
        return usual.removeprefix("./") if usual.startswith("./") else None

    def way(self, models: str, *, location: str = "") -> Way:
        """How the engine is launched where checkpoints without a name lie under the folder `models`, or all weights at
        `location`."""
        folder = self.checkpoint_folder
        return Way(
            checkpoint=self.checkpoint,
            prefix_caching=self.prefix_caching,
            location=location or (f"{models}/{folder}" if folder is not None else ""),
            served_name="" if self.deployment.engine.name == "trtllm" else self.deployment.model.name,
        )

    @property
    def checkpoint_bytes(self) -> float:
        """Bytes of the checkpoint that is read, whatever is made of it while loading."""
        d = self.deployment
        reads_16_bits = is_made_while_loading(dialect_of(d), d) or same_format(d.precision.name, "bf16")
        return sum(
            m.params * (2.0 if reads_16_bits else d.precision.bytes_per_weight(m.role)) for m in matrices(d.model)
        )

    @property
    def start_s(self) -> int:
        """Seconds a start may take before it counts as failed, in whole tens."""
        return 10 * math.ceil((self.checkpoint_bytes / LOAD_BYTES_PER_S + START_S) / 10)

    @property
    def volume_gib(self) -> int:
        """Size of the volume for weights, GiB."""
        return 10 * math.ceil(SPARE_OF_VOLUME * self.checkpoint_bytes / GIB / 10)

    @property
    def shared_memory_gib(self) -> int:
        """Size of /dev/shm, through which processes of a machine talk, GiB."""
        return 4 * self.gpus_per_pod

    @property
    def gpu_resource(self) -> str:
        """What Kubernetes calls the GPUs."""
        return "amd.com/gpu" if self.deployment.accelerator.vendor.lower() == "amd" else "nvidia.com/gpu"


def name_of(text: str) -> str:
    """A text as a DNS label, as Kubernetes wants names.

    >>> name_of("Chat 70B (EU)"), name_of("70b"), name_of("***")
    ('chat-70b-eu', 'llm-70b', 'llm')
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_NAME].strip("-")
    if not name:
        return "llm"
    return name if name[0].isalpha() else f"llm-{name}"[:LONGEST_NAME].strip("-")

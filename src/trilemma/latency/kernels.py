"""The kernels of one accelerator under one engine: base times times what measurements made of them."""

from dataclasses import dataclass, field

import numpy as np

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.figure import Source, weakest
from trilemma.catalogue.transfer import find_surface
from trilemma.latency.operations import Cost, FloatArray


@dataclass(slots=True)
class Kernels:
    """Looks surfaces up and remembers what they rest on: `source` the weakest of all used, `notes` what stood in.

    `slower` stretches every kernel: accelerators without measured kernels take a relative's (`catalogue.transfer`).
    """

    accelerator: Accelerator
    engine: str
    slower: float = 1.0
    source: Source = Source.FITTED
    notes: dict[str, None] = field(default_factory=dict)

    def stretch(self, operation: str, form: str, features: tuple[FloatArray | float, ...]) -> FloatArray:
        """Measured over base time at `features` (the operation's own log2 features); 1 where nothing is measured."""
        found = find_surface(operation, self.accelerator, self.engine, form)
        if found is None:
            self.source = weakest(self.source, Source.GUESS)
            self.notes[f"no measured kernels of {operation.replace('_', ' ')}: data-sheet roofline"] = None
            return np.full(np.broadcast(*features).shape, self.slower)
        self.source = weakest(self.source, found.source)
        if found.note:
            self.notes[found.note] = None
        return self.slower * np.exp(found.surface.log_ratio(*features))

    def priced(self, base: Cost, operation: str, form: str, features: tuple[FloatArray | float, ...]) -> Cost:
        """`base` stretched to what is measured; its parts stay the roofline's, so that they say what binds."""
        return base.stretched(self.stretch(operation, form, features))

    def anew(self) -> "Kernels":
        """The same kernels with nothing looked up yet."""
        return Kernels(self.accelerator, self.engine, self.slower)

    def join(self, other: "Kernels") -> None:
        """What `other` rests on counts here too."""
        self.source = weakest(self.source, other.source)
        self.notes.update(other.notes)

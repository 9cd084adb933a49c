"""How replicas fill purchase units: the GPUs that have to be paid so that a number of replicas can run.

A replica talks over the fast links all the time, so it stays inside one box (a node, or the link domain where that
is larger: an NVL72 rack) unless it is too big for any box. An 8-GPU node holds two replicas of 3 GPUs; its other two
GPUs are paid and stranded.
"""

import math

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator

FloatArray = npt.NDArray[np.float64]


def box_gpus(accelerator: Accelerator) -> int:
    """GPUs a replica can span without leaving the node or the link domain."""
    return max(accelerator.gpus_per_node, accelerator.link_domain_gpus)


def units_for(replicas: FloatArray, *, gpus_per_replica: int, unit_gpus: int, box: int) -> FloatArray:
    """(k,) -> (k,). Purchase units that hold whole numbers of replicas.

    Where a replica fits a unit, a unit holds as many as its boxes do. Where it is larger than a unit but fits a box,
    units are joined inside boxes. Where it fits no box it spans them, and units fill up with the next replica.

    >>> units_for(np.array([1.0, 2.0, 3.0]), gpus_per_replica=3, unit_gpus=8, box=8)
    array([1., 1., 2.])
    >>> units_for(np.array([1.0, 2.0]), gpus_per_replica=4, unit_gpus=1, box=8)
    array([4., 8.])
    >>> units_for(np.array([1.0, 2.0]), gpus_per_replica=12, unit_gpus=8, box=8)
    array([2., 3.])
    """
    size = gpus_per_replica
    if size <= unit_gpus:
        inside = min(box, unit_gpus) if size <= box else unit_gpus
        per_unit = unit_gpus // inside * (inside // size) + unit_gpus % inside // size
        return np.ceil(replicas / per_unit)
    joined = box // unit_gpus * unit_gpus
    if size <= joined:
        per_box = joined // size
        full, rest = np.divmod(replicas, per_box)
        return full * math.ceil(per_box * size / unit_gpus) + np.ceil(rest * size / unit_gpus)
    if size <= box:
        return replicas * math.ceil(size / unit_gpus)
    return np.ceil(replicas * size / unit_gpus)


def paid_gpus(replicas: FloatArray, *, gpus_per_replica: int, unit_gpus: int, box: int) -> FloatArray:
    """(k,) -> (k,). GPUs paid for `replicas`; a fractional count is a time average of the two whole ones beside it.

    >>> paid_gpus(np.array([2.0, 2.5, 3.0]), gpus_per_replica=4, unit_gpus=8, box=8)
    array([ 8., 12., 16.])
    """
    low, high = np.floor(replicas), np.ceil(replicas)
    sizes = {"gpus_per_replica": gpus_per_replica, "unit_gpus": unit_gpus, "box": box}
    units_low, units_high = units_for(low, **sizes), units_for(high, **sizes)
    return unit_gpus * (units_low + (replicas - low) * (units_high - units_low))


def whole_where_meant(replicas: FloatArray) -> FloatArray:
    """Counts within 1e-9 of a whole number as that number: rounding noise must not buy a node.

    >>> whole_where_meant(np.array([8.000000000000002, 2.5]))
    array([8. , 2.5])
    """
    whole = np.rint(replicas)
    return np.where(np.abs(replicas - whole) < 1e-9, whole, replicas)

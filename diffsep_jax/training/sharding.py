"""The device mesh and where every array lives on it."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh's two axes; -1 = all devices that the other axis leaves.

    Attributes:
        data: replicas; the batch is split over them.
        fsdp: devices that share one copy of the parameters; the batch is split over them too.
        min_shard_size: arrays of fewer elements are replicated.
    """

    data: int = -1
    fsdp: int = 1
    min_shard_size: int = 2**16


def make_mesh(config: MeshConfig) -> Mesh:
    """A ("data", "fsdp") mesh over all devices. Raises UserError if the sizes do not fit them."""
    devices = jax.device_count()
    sizes = [config.data, config.fsdp]
    if sizes.count(-1) == 1:
        known = max(sizes)
        sizes[sizes.index(-1)] = devices // known if known > 0 else 0
    if min(sizes) < 1 or sizes[0] * sizes[1] != devices:
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp} does not fit {devices} devices; two sizes"
            " whose product is the number of devices are expected, one of them may be -1"
        )
    return jax.make_mesh((sizes[0], sizes[1]), ("data", "fsdp"), (AxisType.Auto,) * 2)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError unless every device gets the same number of examples."""
    if batch_size % mesh.size:
        raise UserError(
            f"batch_size is {batch_size}; a multiple of the {mesh.size} devices is expected"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The batch axis split over every device."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def state_sharding(abstract_state: Any, mesh: Mesh, min_shard_size: int) -> Any:
    """FSDP: each large array split over `fsdp` along its largest dimension that divides.

    The rule looks at shapes only, so parameters, moments and EMA of one shape lie alike.
    """
    shards = mesh.shape["fsdp"]

    def rule(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        divisible = [axis for axis, size in enumerate(leaf.shape) if size % shards == 0]
        if shards == 1 or leaf.size < min_shard_size or not divisible:
            return NamedSharding(mesh, P())
        largest = max(divisible, key=lambda axis: leaf.shape[axis])
        spec: list[str | None] = [None] * len(leaf.shape)
        spec[largest] = "fsdp"
        return NamedSharding(mesh, P(*spec))

    return jax.tree.map(rule, abstract_state)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's rows of the global batch, onto its devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }

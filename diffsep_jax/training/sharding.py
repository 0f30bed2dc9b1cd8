"""The device mesh and where every array lives on it."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.errors import UserError

T = TypeVar("T")

MESH_AXES = ("data", "fsdp")
BATCH_SPEC = P(MESH_AXES)


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


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A ("data", "fsdp") mesh over the devices, by default all of all processes.

    Several slices (of TPUs, or the hosts of GPUs, whose links within are faster) divide `data`, so
    that only gradients travel between them. Raises UserError if the sizes do not fit.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp]
    if sizes.count(-1) == 1:
        known = max(sizes)
        sizes[sizes.index(-1)] = len(devices) // known if known > 0 else 0
    if min(sizes) < 1 or sizes[0] * sizes[1] != len(devices):
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp} does not fit {len(devices)} devices;"
            " expected two sizes whose product is the number of devices; one of them may be -1"
        )
    in_slice = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(set(in_slice.values())) > 1 or sizes[0] % len(in_slice):
        raise UserError(
            f"mesh data={sizes[0]} fsdp={sizes[1]} does not fit {len(in_slice)} slices of"
            f" {', '.join(map(str, in_slice.values()))} devices; expected slices of one size and"
            " data a multiple of their number. On GPUs every host is a slice"
        )
    types = (AxisType.Auto,) * 2
    if len(in_slice) == 1:
        return jax.make_mesh((sizes[0], sizes[1]), MESH_AXES, types, devices=devices)
    grid = mesh_utils.create_hybrid_device_mesh(
        (sizes[0] // len(in_slice), sizes[1]),
        (len(in_slice), 1),
        devices,
        allow_split_physical_axes=True,
    )
    return Mesh(grid, MESH_AXES, axis_types=types)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The batch axis split over every device."""
    return NamedSharding(mesh, BATCH_SPEC)


class BatchLayout:
    """Which rows of the global batch this process provides, and how they reach the devices.

    Attributes:
        mesh: the mesh.
        batch_size: rows of the global batch.
        rows: this process's rows, ascending; each row belongs to one process.
        sharding: the batch axis split over every device of the mesh.
        everywhere: a copy on every device of the mesh.
    """

    def __init__(self, mesh: Mesh, batch_size: int, micro_batches: int = 1) -> None:
        """Raises UserError unless every device gets the same number of examples."""
        if batch_size % (mesh.size * micro_batches):
            raise UserError(
                f"batch_size is {batch_size}; expected a multiple of {mesh.size} devices x"
                f" {micro_batches} micro-batches"
            )
        self.mesh = mesh
        self.batch_size = batch_size
        self.sharding = batch_sharding(mesh)
        self.everywhere = NamedSharding(mesh, P())
        owned = self.sharding.addressable_devices_indices_map((batch_size,)).values()
        self.rows = sorted(row for index in owned if index for row in range(batch_size)[index[0]])

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The global batch on the devices, from this process's rows of it."""

        def part(local: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
            rows = range(self.batch_size)[index[0]]
            first = self.rows.index(rows[0])
            return local[first : first + len(rows)]

        return {
            name: jax.make_array_from_callback(
                (self.batch_size, *local.shape[1:]), self.sharding, functools.partial(part, local)
            )
            for name, local in batch.items()
        }


def state_sharding(abstract_state: Any, mesh: Mesh, min_shard_size: int) -> Any:
    """FSDP: each large array split over `fsdp` along its largest dimension that divides.

    The rule looks at shapes only, so parameters, moments and EMA of one shape are laid out alike.
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


def with_shardings(abstract: T, shardings: T) -> T:
    """Shapes and types with the shardings to compile for or restore into."""
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        abstract,
        shardings,
    )


def gather(shards: Any, specs: Any) -> Any:
    """Inside shard_map: whole arrays from the devices' parts, with one all-gather each."""

    def whole(shard: jax.Array, spec: P) -> jax.Array:
        if "fsdp" not in spec:
            return shard
        return jax.lax.all_gather(shard, "fsdp", axis=spec.index("fsdp"), tiled=True)

    return jax.tree.map(whole, shards, specs)


def mean_and_scatter(values: Any, specs: Any) -> Any:
    """Inside shard_map: the mean over all devices, each keeping the part that `specs` give it.

    A split array is reduce-scattered over `fsdp`, so that only a part is reduced over `data`.
    """

    def mean(value: jax.Array, spec: P) -> jax.Array:
        if "fsdp" not in spec:
            return jax.lax.pmean(value, MESH_AXES)
        axis = spec.index("fsdp")
        part = jax.lax.psum_scatter(value, "fsdp", scatter_dimension=axis, tiled=True)
        if jax.lax.axis_size("data") > 1:  # the compiler may keep a reduction over one device
            part = jax.lax.psum(part, "data")
        return part / jax.lax.axis_size(MESH_AXES)

    return jax.tree.map(mean, values, specs)

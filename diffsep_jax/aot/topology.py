"""The devices of a machine that is not here, by the name of its topology."""

import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from diffsep_jax.errors import UserError

TPU_EXAMPLES = "v4:2x2x2, v5e:2x4, v5e:16x16, v5p:2x2x2, v6e:2x4"
_NAME = re.compile(r"(?P<generation>v\d+[a-z]*):(?P<sizes>\d+x\d+(x\d+)?)")
_CPU_NAME = re.compile(r"cpu(:(?P<count>[1-9]\d*))?")

# The compiler for TPUs, libtpu, expects to find itself on a TPU host. It is told not to look for
# one, to stand beside another process that compiles, and names that quiet its complaints.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}


class Topology(NamedTuple):
    """Devices to compile for.

    Attributes:
        name: as asked for.
        devices: one for each chip; of a TPU they can be compiled for, but hold no arrays.
        compiler: libtpu's version, or XLA's where it is part of jaxlib.
    """

    name: str
    devices: list[jax.Device]
    compiler: str

    @property
    def platform(self) -> str:
        """ "tpu" or "cpu"."""
        return self.devices[0].platform

    @property
    def device_kind(self) -> str:
        """JAX's name of the chip."""
        return self.devices[0].device_kind

    @property
    def hosts(self) -> int:
        """Processes that a run on this topology has."""
        return len({device.process_index for device in self.devices})


def topology(name: str) -> Topology:
    """The devices of "cpu", "cpu:8" (simulated) or a TPU slice such as "v5e:2x4".

    Nothing but the host's CPU is used, whatever accelerators it has. Raises UserError for an
    unknown name, and where TPUs are asked for without libtpu.
    """
    if match := _CPU_NAME.fullmatch(name):
        return _cpu_topology(name, int(match["count"] or 1))
    if match := _NAME.fullmatch(name):
        return _tpu_topology(name, match["generation"], match["sizes"])
    raise UserError(_unknown(name))


def memory_of_device(topology: Topology) -> float | None:
    """This machine's memory in bytes, divided among its simulated devices; None of a TPU."""
    if topology.platform != "cpu":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(topology.devices)


def find_libtpu() -> str | None:
    """The version of libtpu; None if it can't be found."""
    library = os.environ.get("TPU_LIBRARY_PATH")
    if not library:
        return importlib.metadata.version("libtpu") if importlib.util.find_spec("libtpu") else None
    path = pathlib.Path(library)
    if not path.is_file():
        return None
    beside = importlib.metadata.distributions(name="libtpu", path=[str(path.parent.parent)])
    return next((found.version for found in beside), "of unknown version")


def _cpu_topology(name: str, count: int) -> Topology:
    with contextlib.suppress(RuntimeError):  # JAX is running; it may have enough all the same
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"topology {name}: JAX is already running with {len(devices)} CPU devices; ask for at"
            " most so many, or in a process of its own"
        )
    return Topology(name, devices[:count], "jaxlib's XLA")


def _tpu_topology(name: str, generation: str, sizes: str) -> Topology:
    version = find_libtpu()
    if version is None:
        raise UserError(
            f"topology {name}: no libtpu, the compiler for TPUs; pip install 'diffsep-jax[tpu]', or"
            " set TPU_LIBRARY_PATH to a libtpu.so"
        )
    jax.config.update("jax_platforms", "cpu")
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    on_a_host = [min(2, int(size)) for size in sizes.split("x")[:2]]
    options: dict[str, Any] = {"chips_per_host_bounds": [*on_a_host, 1]}
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # a chip's two cores are one device
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split(": ", 1)[-1].splitlines()[0]
        raise UserError(f"{_unknown(name)} ({reason})") from None
    return Topology(name, list(found.devices), f"libtpu {version}")


def _unknown(name: str) -> str:
    return (
        f"unknown topology {name!r}; cpu, cpu:N or a TPU slice, such as {TPU_EXAMPLES}, is expected"
    )

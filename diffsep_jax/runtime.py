"""What a program runs on: CPU cores, other hosts, compiled programs on disk, known chips."""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax

from diffsep_jax.errors import MachineError, UserError
from diffsep_jax.files import check_writable, make_folder, user_cache

MIN_COMPILE_SECONDS = 0.1
"""Programs that compile faster are not kept. JAX's default of 1 s would leave out small models."""

BARRIER_SECONDS = 1800
LONG_BARRIER_SECONDS = 7 * 24 * 3600
"""Timeout where one process may have far more to do than another."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A vendor's figures for one chip.

    Attributes:
        flops: bfloat16 operations per second with float32 sums, dense, a multiply-add counted as
            two.
        memory: bytes, with 1 GB = 1e9 even where the vendor may mean 2**30.
    """

    flops: float
    memory: float


# By `jax.Device.device_kind`. Sources: Google's Cloud TPU documentation, NVIDIA's data sheets.
CHIPS = {
    "TPU v4": Chip(flops=275e12, memory=32e9),
    "TPU v5 lite": Chip(flops=197e12, memory=16e9),
    "TPU v5e": Chip(flops=197e12, memory=16e9),
    "TPU v5": Chip(flops=459e12, memory=95e9),  # v5p
    "TPU v6 lite": Chip(flops=918e12, memory=32e9),
    "TPU v6e": Chip(flops=918e12, memory=32e9),
    "NVIDIA A100-SXM4-40GB": Chip(flops=312e12, memory=40e9),
    "NVIDIA A100-SXM4-80GB": Chip(flops=312e12, memory=80e9),
    "NVIDIA H100 80GB HBM3": Chip(flops=989e12, memory=80e9),
    "NVIDIA H100 PCIe": Chip(flops=756e12, memory=80e9),
    "NVIDIA GH200 480GB": Chip(flops=989e12, memory=96e9),
    "NVIDIA H200": Chip(flops=989e12, memory=141e9),
    "NVIDIA B200": Chip(flops=2250e12, memory=180e9),
    "NVIDIA L4": Chip(flops=121e12, memory=24e9),
}


Dtype = Literal["float32", "bfloat16"]
DtypeOption = Literal["auto", "float32", "bfloat16"]
DeviceOption = Literal["auto", "cpu", "gpu", "tpu"]


def inference_dtype(option: DtypeOption, platforms: Sequence[str] = ()) -> Dtype:
    """The type that the option `dtype` of inference means on `platforms`, by default JAX's.

    `auto` is float32 if one of them is the CPU, which computes bfloat16 no faster; otherwise it is
    bfloat16.
    """
    if option != "auto":
        return option
    return "float32" if "cpu" in (platforms or (jax.default_backend(),)) else "bfloat16"


@contextlib.contextmanager
def fixed_flags() -> Iterator[None]:
    """Keeps the JAX flags that affect results at JAX's own defaults, in this thread.

    Models are trained with these. Other code of the process, or an environment variable, may have
    changed them.
    """
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.default_matmul_precision(None),
        jax.disable_jit(False),
    ):
        yield


def use_cores(batch_size: int) -> None:
    """Makes each CPU core a JAX device, at most `batch_size` of them. Call it before JAX is used.

    XLA's CPU compiler runs little but large matrix products on several cores; with one chunk per
    core, the whole program runs in parallel. A number of devices set by jax_num_cpu_devices,
    JAX_NUM_CPU_DEVICES or XLA_FLAGS is kept. No effect where JAX finds GPUs or TPUs.
    """
    in_flags = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if in_flags or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", max(1, min(cores or 1, batch_size)))


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start compiles nothing.

    The folder is diffsep-jax/compiled in $XDG_CACHE_HOME, else where the platform keeps caches.
    JAX's own variables take precedence: JAX_COMPILATION_CACHE_DIR names another folder, or turns
    the cache off if it is empty; JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS sets the threshold.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            folder = user_cache("compiled")
            make_folder(folder)
            check_writable(folder)
        except (MachineError, UserError) as error:
            print(f"note: compiled programs are not kept: {error}", file=sys.stderr)
        else:
            jax.config.update("jax_compilation_cache_dir", str(folder))


def check_platform(device: DeviceOption = "auto") -> None:
    """Starts JAX on `device`, regardless of JAX_PLATFORMS; auto leaves the choice to JAX.

    Raises:
      UserError: this machine has no `device`, or not the one that JAX_PLATFORMS names.
      MachineError: JAX finds no device for another reason.
    """
    if device != "auto":
        jax.config.update("jax_platforms", "cpu" if device == "cpu" else None)
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # JAX asserts that a known platform exists
        names, reason = os.environ.get("JAX_PLATFORMS"), str(error).partition("\n")[0]
        if not names:
            raise MachineError(f"JAX cannot start: {reason}") from None
        raise UserError(
            f"JAX_PLATFORMS is {names!r}; expected a platform of this machine, such as cpu"
            + f" ({reason})" * bool(reason)
        ) from None
    if device not in ("auto", found := jax.default_backend()):
        raise UserError(
            f"device is {device}; expected one of auto, {found}. JAX finds no {device} here: GPUs"
            " need the extra cuda13 or cuda12, TPUs tpu (see README.md)"
        )


def describe_devices() -> str:
    """This process's devices in words, such as "2 CPU cores" or "NVIDIA H100 80GB HBM3"."""
    first, *others = jax.local_devices()
    if first.platform == "cpu":
        return f"{1 + len(others)} CPU core{'s' * bool(others)}"
    return f"{1 + len(others)} x {first.device_kind}" if others else first.device_kind


def join_hosts(multihost: bool, device: DeviceOption = "auto") -> None:
    """With `multihost`, joins this process to the run's others. Call it before JAX is used.

    All of them start JAX on `device`, as in `check_platform`.

    JAX finds them under SLURM, Open MPI and Kubernetes and on TPU slices. Elsewhere each process
    needs JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UserError: the others cannot be reached; or this is one process of several and `multihost`
        is not set, so that each would do all of the work.
    """
    if not multihost:
        sign = launched_as_one_of_several(os.environ)
        if sign is None:
            check_platform(device)
        if sign is None and jax.process_count() > 1:
            sign = f"JAX finds {jax.process_count()} hosts"
        if sign is not None:
            raise UserError(
                f"{sign}, so this is one of several processes; add --multihost to join them, or"
                " start a single process"
            )
        return
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "HOST:0")
    if not re.fullmatch(r".+:\d+", address):
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {address!r}; expected HOST:PORT")
    arguments: dict[str, Any] = {}
    for name in ("num_processes", "process_id"):
        value = os.environ.get(f"JAX_{name.upper()}")
        if value is not None:
            if not value.isdecimal():
                raise UserError(f"JAX_{name.upper()} is {value!r}; expected a whole number")
            arguments[name] = int(value)
    try:
        jax.distributed.initialize(**arguments)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--multihost: cannot join the other processes: {reason.rstrip('.')}; without SLURM,"
            " Open MPI, Kubernetes or a TPU slice, set JAX_COORDINATOR_ADDRESS to HOST:PORT,"
            " JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None
    check_platform(device)


def launched_by_mpi(environment: Mapping[str, str]) -> str | None:
    """The NAME=VALUE by which mpirun or srun says that it started several processes, if it does."""
    # Open MPI, MPICH and its relatives, MVAPICH, srun. A batch script of SLURM is one process.
    mpi = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
    signs = (name for name in (*mpi, "SLURM_STEP_NUM_TASKS") if environment.get(name, "1") != "1")
    return next((f"{name}={environment[name]}" for name in signs), None)


def launched_as_one_of_several(environment: Mapping[str, str]) -> str | None:
    """Like `launched_by_mpi`, but also for hosts of a TPU slice and JAX's own variables."""
    if sign := launched_by_mpi(environment):
        return sign
    signs = []
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        signs.append("TPU_WORKER_HOSTNAMES")
    coordinators = ("MEGASCALE_COORDINATOR_ADDRESS", "JAX_COORDINATOR_ADDRESS")
    signs += [name for name in coordinators if name in environment]
    return f"{signs[0]}={environment[signs[0]]}" if signs else None


def wait_for_all(what: str, timeout_seconds: int = BARRIER_SECONDS) -> None:
    """Barrier over all processes; use each `what` only once.

    The processes meet at the coordinator, not on the devices, whose collectives give up within
    seconds if one process compiles for minutes longer than another.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # slow to import

        everyone = set(range(jax.process_count()))
        multihost.sync_global_processes(what, timeout=timeout_seconds, processes=everyone)


def is_primary() -> bool:
    """Whether this process writes the log and the exported model."""
    return jax.process_index() == 0


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """FLOPs of `function` as written, a loop's body counted once; `arguments` may be abstract.

    Only XLA for CPUs counts without compiling. Raises RuntimeError if JAX_PLATFORMS excludes it.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        costs: Any = jax.jit(function).lower(*arguments).cost_analysis()
    return costs["flops"]

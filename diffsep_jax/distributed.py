"""Several processes as one run: found from SLURM or a TPU's environment, or told by flags."""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from diffsep_jax.errors import UserError

# JAX and Orbax are imported in the functions: a command that has this config starts without them.

T = TypeVar("T")

_PATIENCE_SECONDS = 1800

DAYS_SECONDS = 7 * 24 * 3600
"""Patience at the end of work that one process may have much more of than another."""

# What JAX says where nothing in the environment tells of other processes.
_NO_OTHERS = (
    "coordinator_address should be defined.",
    "Number of processes must be defined.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Which process this is. Leave all unset on one host, under SLURM, and on a TPU.

    Attributes:
        coordinator: HOST:PORT of process 0, reachable from all.
        num_processes: how many processes the run has.
        process_id: this one's number, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def check(self) -> None:
        """UserError for values that cannot be or do not go together."""
        values = (self.coordinator, self.num_processes, self.process_id)
        if any(value is None for value in values):
            if any(value is not None for value in values):
                raise UserError(
                    f"distributed: coordinator={self.coordinator} num_processes="
                    f"{self.num_processes} process_id={self.process_id}; give all three, or none"
                    " where SLURM or a TPU's environment tells them"
                )
            return
        assert self.coordinator is not None
        assert self.num_processes is not None
        assert self.process_id is not None
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"distributed.coordinator is {self.coordinator!r}; HOST:PORT expected")
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"distributed.process_id is {self.process_id}; 0 to"
                f" {self.num_processes - 1} is expected, as num_processes={self.num_processes}"
            )


def initialize(config: DistributedConfig) -> None:
    """Joins this process to the run's others, if there are any. Call it before JAX is used.

    Raises UserError if they cannot be reached, or for a bad config.
    """
    config.check()
    told = config.coordinator is not None
    sure = told or in_cluster(os.environ)
    if not sure and not on_tpu_host():
        return
    arguments = dataclasses.asdict(config) if told else {}
    arguments["coordinator_address"] = arguments.pop("coordinator", None)
    import jax

    try:
        jax.distributed.initialize(**arguments)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if not sure and reason in _NO_OTHERS:
            return
        raise UserError(
            f"cannot join the run's other processes (coordinator"
            f" {config.coordinator or 'found from the environment'}): {reason}"
            + ("" if sure else "; for a TPU host on its own, set TPU_SKIP_MDS_QUERY=1")
        ) from None


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether the environment says that this is one process of several, in a way JAX can read.

    SLURM with more than one task; one of several TPU hosts on GKE.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if "SLURM_PROCID" in environment and int(tasks) > 1:
        return True
    many_hosts = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    return many_hosts or "MEGASCALE_COORDINATOR_ADDRESS" in environment


def on_tpu_host() -> bool:
    """Whether this machine has TPU chips; on Cloud TPU, JAX then asks for the other hosts."""
    wants_tpu = os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")
    has_library = importlib.util.find_spec("libtpu") is not None
    chips = (pathlib.Path("/dev/accel0"), pathlib.Path("/dev/vfio/0"))
    return wants_tpu and has_library and any(path.exists() for path in chips)


def wait_for_all(what: str, patience_seconds: int = _PATIENCE_SECONDS) -> None:
    """Returns once every process has come here; through the coordinator, without the devices.

    The devices' own collectives give up after seconds where one process compiles for minutes longer
    than another. Each `what` serves once.
    """
    import jax

    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        everyone = set(range(jax.process_count()))
        multihost.sync_global_processes(what, timeout=patience_seconds, processes=everyone)


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of what all have: every n-th, where n processes run."""
    import jax

    return items[jax.process_index() :: jax.process_count()]


def is_primary() -> bool:
    """Whether this process writes the log and the exported model."""
    import jax

    return jax.process_index() == 0

"""Cores, the cache of compiled programs, joining hosts, the table of chips, counting FLOPs."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from processes import python

from diffsep_jax.errors import UserError
from diffsep_jax.runtime import (
    CHIPS,
    count_flops,
    join_hosts,
    launched_as_one_of_several,
    use_compilation_cache,
    use_cores,
)

COUNT_DEVICES = """
import json, sys
from diffsep_jax.runtime import use_cores
use_cores(int(sys.argv[1]))
import jax
print(json.dumps(len(jax.devices())))
"""


def num_devices(batch_size, **environment):
    names = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    result = subprocess.run(
        [sys.executable, "-c", COUNT_DEVICES, str(batch_size)],
        env=inherited | environment,
        check=True,
        capture_output=True,
    )
    return json.loads(result.stdout)


def test_as_many_devices_as_cores_and_chunks():
    assert num_devices(64) == len(os.sched_getaffinity(0))
    assert num_devices(1) == 1


def test_a_number_of_devices_set_for_jax_stays():
    use_cores(64)
    assert jax.config.jax_num_cpu_devices == 8  # of tests/conftest.py
    assert num_devices(64, XLA_FLAGS="--xla_force_host_platform_device_count=3") == 3


@pytest.fixture
def cache_dir(monkeypatch):
    """The folder that is set now, as a function; what was set before comes back afterwards."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_users_cache_folder(cache_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    assert cache_dir() == str(tmp_path / "diffsep-jax" / "compiled")


@pytest.mark.parametrize("folder", ["elsewhere", ""])
def test_jaxs_own_variable_takes_precedence(cache_dir, monkeypatch, folder):
    before = cache_dir()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
    use_compilation_cache()
    assert cache_dir() == before


@pytest.mark.parametrize(
    ("environment", "sign"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # sbatch without srun: one process
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}, "SLURM_STEP_NUM_TASKS=8"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE=4"),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, "TPU_WORKER_HOSTNAMES=host-0,host-1"),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "host-0"}, "MEGASCALE_COORDINATOR_ADDRESS=host-0"),
        ({"JAX_COORDINATOR_ADDRESS": "host-0:1234"}, "JAX_COORDINATOR_ADDRESS=host-0:1234"),
    ],
)
def test_a_launcher_is_recognised_by_its_variables(environment, sign):
    assert launched_as_one_of_several(environment) == sign


def test_one_process_of_several_asks_for_the_option(monkeypatch):
    join_hosts(multihost=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^OMPI_COMM_WORLD_SIZE=2.*add --multihost"):
        join_hosts(multihost=False)
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    monkeypatch.setattr(jax, "process_count", lambda: 4)  # as on a TPU slice
    with pytest.raises(UserError, match=r"^JAX finds 4 hosts.*add --multihost"):
        join_hosts(multihost=False)


@pytest.mark.parametrize(
    "error", [RuntimeError("DEADLINE_EXCEEDED: timed out\nmore"), OSError("no route to host")]
)
def test_hosts_that_cannot_be_reached_end_in_one_line(monkeypatch, error):
    def fails(**_):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(UserError, match=r"cannot join .*(timed out|no route)") as raised:
        join_hosts(multihost=True)
    assert "\n" not in str(raised.value)


def test_the_place_among_hand_started_processes_is_read(monkeypatch):
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **values: given.update(values))
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    join_hosts(multihost=True)
    assert given == {"num_processes": 3, "process_id": 2}


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_PROCESS_ID", "two"), ("JAX_COORDINATOR_ADDRESS", "host-0")]
)
def test_a_place_that_cannot_be_is_named(monkeypatch, name, value):
    monkeypatch.setattr(jax.distributed, "initialize", pytest.fail)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name} is '{value}'; expected"):
        join_hosts(multihost=True)


@pytest.mark.parametrize("kind", CHIPS)
def test_figures_are_in_operations_and_bytes(kind):
    """A slip of a unit would leave these ranges."""
    assert 1e14 < CHIPS[kind].flops < 1e16
    assert 1e10 < CHIPS[kind].memory < 1e12


def test_flops_of_a_product_are_two_for_each_term():
    x, y = jax.ShapeDtypeStruct((24, 8), jnp.float32), jax.ShapeDtypeStruct((8, 5), jnp.float32)
    assert count_flops(jnp.matmul, x, y) == 2 * 24 * 8 * 5


def test_a_platform_that_is_not_there_is_named():
    code = "from diffsep_jax.runtime import check_platform; check_platform()"
    for name in ("cuda", "nonsense"):
        result = python("-c", code, JAX_PLATFORMS=name)
        assert f"UserError: JAX_PLATFORMS is '{name}'; expected a platform" in result.stderr


def test_a_device_that_is_not_there_is_named_and_the_cpu_always_is():
    code = (
        "import jax; from diffsep_jax.runtime import check_platform\n"
        "check_platform({!r}); print(jax.default_backend())"
    )
    for device, output in (("cpu", "cpu\n"), ("gpu", ""), ("tpu", "")):
        result = python("-c", code.format(device), JAX_PLATFORMS="nonsense")
        if output == "" and result.returncode == 0:
            pytest.skip(f"this machine has a {device}")
        assert result.stdout == output
        if not output:
            assert f"UserError: device is {device}; expected one of auto, cpu. " in result.stderr


def test_without_a_cache_of_its_own_a_user_can_still_compile(
    cache_dir, monkeypatch, tmp_path, capsys
):
    """There is neither HOME nor an entry in the table of users; or the folder is another's."""
    before = cache_dir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    (tmp_path / "file").touch()
    for folder in ("", str(tmp_path / "file")):
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        use_compilation_cache()
        assert cache_dir() == before
        assert capsys.readouterr().err.startswith("note: compiled programs are not kept: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

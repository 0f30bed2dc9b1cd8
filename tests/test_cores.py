"""A CPU's cores as devices: as many as are there and are of use, and none where JAX was told."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys
from diffsep_jax.cores import use_cores
use_cores(int(sys.argv[1]))
import jax
print(json.dumps(len(jax.devices())))
"""


def num_devices(batch_size: int, **environment: str) -> int:
    names = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(batch_size)],
        env=inherited | environment,
        check=True,
        capture_output=True,
    )
    return json.loads(result.stdout)


def test_as_many_devices_as_cores_and_chunks() -> None:
    cores = len(os.sched_getaffinity(0))
    assert num_devices(64) == cores
    assert num_devices(1) == 1


@pytest.mark.parametrize(
    "told",
    [
        {"JAX_NUM_CPU_DEVICES": "3"},
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
    ],
)
def test_a_number_that_jax_was_told_stays(told: dict[str, str]) -> None:
    assert num_devices(64, **told) == 3

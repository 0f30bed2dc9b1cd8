"""The table of chips: JAX's names, and orders of magnitude that a slip of a unit would break."""

import jax
import pytest

from diffsep_jax.hardware import CHIPS, chip


def test_cpus_and_unknown_chips_have_no_figures():
    assert chip(jax.devices()[0].device_kind) is None
    assert chip("TPU v99") is None


@pytest.mark.parametrize("kind", CHIPS)
def test_figures_are_in_operations_and_bytes_a_second(kind):
    found = chip(kind)
    assert 1e14 < found.flops < 1e16
    assert 1e10 < found.memory < 1e12
    assert 1e11 < found.memory_bandwidth < 1e13
    assert 1e10 < found.interconnect_bandwidth < found.memory_bandwidth


@pytest.mark.parametrize(
    ("kind", "gigabytes"),
    [("TPU v4", 32), ("TPU v5 lite", 16), ("TPU v5", 95), ("TPU v6 lite", 32)],
)
def test_memory_of_tpus(kind, gigabytes):
    assert chip(kind).memory == gigabytes * 1e9

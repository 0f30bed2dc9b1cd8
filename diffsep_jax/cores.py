"""A CPU as several devices of JAX, so that each core works on chunks of its own.

XLA's CPU compiler spreads one program's large matrix products over the cores and little else: with
chunks side by side on devices of one core each, all of the program runs in parallel.
"""

import os

import jax


def use_cores(batch_size: int) -> None:
    """Makes as many devices of the CPU as this process has cores, at most `batch_size`.

    Call it before JAX is used. Nothing is changed where JAX was told a number: by its option
    jax_num_cpu_devices or the variables JAX_NUM_CPU_DEVICES and XLA_FLAGS. Where there are GPUs or
    TPUs, those are used, and this does nothing.
    """
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if told or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", max(1, min(cores or 1, batch_size)))

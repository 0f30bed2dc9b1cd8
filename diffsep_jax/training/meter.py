"""How fast a run goes: examples a second, waiting, saving, utilisation, since the last reading."""

import contextlib
import time
from collections.abc import Iterator

from jax.sharding import Mesh

from diffsep_jax.hardware import chip


class Meter:
    """Rates between two readings; validations do not count."""

    def __init__(self, step: int, batch_size: int, flops_per_example: float, mesh: Mesh) -> None:
        """`flops_per_example`: model FLOPs of a training step, for the utilisation."""
        self._batch_size = batch_size
        self._flops_per_example = flops_per_example
        known = chip(mesh.devices.flat[0].device_kind)
        self._peak = known and known.flops * mesh.size
        self._step = step
        self._since = time.perf_counter()
        self._waited = self._saved = 0.0

    def rates(self, step: int) -> dict[str, float]:
        """The figures since the last call.

        `model_flops_utilisation` is a share of the devices' bfloat16 peak, where that is known.
        """
        now = time.perf_counter()
        examples = (step - self._step) * self._batch_size
        per_second = examples / max(now - self._since, 1e-9)
        rates = {
            "examples_per_second": per_second,
            "data_wait_seconds": self._waited,
            "save_wait_seconds": self._saved,
        }
        if self._peak:
            rates["model_flops_utilisation"] = per_second * self._flops_per_example / self._peak
        self._step, self._since = step, now
        self._waited = self._saved = 0.0
        return rates

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """The time inside counts as waited for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """The time inside counts as waited for a save: the copy, and an earlier save's end."""
        start = time.perf_counter()
        yield
        self._saved += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside does not count."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

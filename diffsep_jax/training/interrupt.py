"""Ctrl-C and SIGTERM as requests: the loop stops between two steps, where the state is whole."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.training.sharding import batch_sharding

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A context in which the first Ctrl-C or SIGTERM is only noted; the second one ends at once.

    A signal may reach one process of several, and each at another step, so they vote: every process
    calls `vote` once a step, and all get the same answer at the same step.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._several = jax.process_count() > 1
        self._sharding = batch_sharding(mesh)
        self._devices = mesh.size
        self._largest = jax.jit(lambda votes: votes.max(), out_shardings=NamedSharding(mesh, P()))

    def __enter__(self) -> "StopRequest":
        self._received = 0
        self._last_vote: jax.Array | None = None
        self._previous: dict[int, Any] = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def vote(self) -> int:
        """The signal that all processes know of, or 0.

        With several processes the answer is that of the votes of a step ago: it costs no waiting,
        as the step before is complete when it is asked for.
        """
        if not self._several:
            return self._received
        answer = 0 if self._last_vote is None else int(self._last_vote)
        mine = np.array([self._received], np.int32)
        part: Callable[[Any], np.ndarray] = lambda _: mine  # noqa: E731
        votes = jax.make_array_from_callback((self._devices,), self._sharding, part)
        self._last_vote = self._largest(votes)
        return answer

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, self._previous[number])

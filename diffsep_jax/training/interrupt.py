"""Ctrl-C and SIGTERM as requests: the loop stops between two steps, where the state is whole."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.errors import PreemptedError
from diffsep_jax.training.sharding import batch_sharding


class StopRequest:
    """A context in which the first Ctrl-C or SIGTERM is noted, for the loop to save and stop.

    A second signal has its usual effect. A signal may reach only one of several processes, or
    reach them at different steps, so they vote: every process calls `vote` once per step, and all
    get the same answer at the same step.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._devices = mesh.size
        self._largest = jax.jit(lambda votes: votes.max(), out_shardings=NamedSharding(mesh, P()))
        self._received = 0
        self._last_vote: jax.Array | None = None

    def __enter__(self) -> "StopRequest":
        self._previous: dict[int, Any] = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(number, self._previous[number])
        self._received = number

    def vote(self) -> int:
        """The number of the signal that all processes know of, or 0.

        With several processes the answer is that of the previous call's votes. That costs no
        waiting, because the step between the two calls is complete by then. The first vote, before
        any step, is its own answer.
        """
        if jax.process_count() == 1:
            return self._received
        mine = np.array([self._received], np.int32)
        part: Callable[[Any], np.ndarray] = lambda _: mine  # noqa: E731
        votes = jax.make_array_from_callback((self._devices,), self._sharding, part)
        latest = self._largest(votes)
        answer = latest if self._last_vote is None else self._last_vote
        self._last_vote = latest
        return int(answer)


def raise_stopped(number: int, done: str) -> NoReturn:
    """Ends a run that signal `number` asked to stop; `done` says what was saved."""
    message = f"{done}; run the same command again to resume"
    if number == signal.SIGTERM:
        raise PreemptedError(message)
    raise KeyboardInterrupt(message)


def raise_preempted(number: int, _frame: FrameType | None) -> NoReturn:
    """Handles SIGTERM where there is nothing to save."""
    raise_stopped(number, "there was nothing to save")

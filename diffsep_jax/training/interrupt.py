"""Ctrl-C and SIGTERM as requests: the loop stops between two steps, where the state is whole."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.errors import PreemptedError
from diffsep_jax.training.sharding import batch_sharding

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A context in which the first Ctrl-C or SIGTERM ends a run in an orderly way.

    Inside `noting` it is only noted, for the training loop to save and stop. Outside, where there
    is nothing to save, it raises KeyboardInterrupt or PreemptedError; but one process of several
    notes it there too, as the others wait for it. The second signal ends the process at once.

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
        self._notes = self._several
        self._last_vote: jax.Array | None = None
        self._previous: dict[int, Any] = {s: signal.signal(s, self._receive) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Inside, the first signal waits for a vote."""
        self._notes = True
        try:
            yield
        finally:
            self._notes = self._several

    def vote(self) -> int:
        """The signal that all processes know of, or 0.

        With several processes the answer is that of the votes of a step ago: it costs no waiting,
        as the step before is complete when it is asked for. The first vote, before any step, is
        its own answer.
        """
        if not self._several:
            return self._received
        mine = np.array([self._received], np.int32)
        part: Callable[[Any], np.ndarray] = lambda _: mine  # noqa: E731
        votes = jax.make_array_from_callback((self._devices,), self._sharding, part)
        latest = self._largest(votes)
        answer = latest if self._last_vote is None else self._last_vote
        self._last_vote = latest
        return int(answer)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(number, self._previous[number])
        if not self._notes:
            raise_stopped(number, "nothing was to be saved")
        self._received = number


def raise_stopped(number: int, done: str) -> NoReturn:
    """What a run that a signal asked to stop ends with; `done` tells what is saved."""
    message = f"{done}; run the same command again to go on"
    if number == signal.SIGTERM:
        raise PreemptedError(message)
    raise KeyboardInterrupt(message)

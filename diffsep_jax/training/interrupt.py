"""Ctrl-C as a request: the loop stops between two steps, where the state is whole."""

import signal
from types import FrameType


class StopRequest:
    """A context in which the first Ctrl-C only sets `requested`; the second one interrupts."""

    def __enter__(self) -> "StopRequest":
        self.requested = False
        self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _request(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

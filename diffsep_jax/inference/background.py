"""A thread that computes an iterator's items ahead: one stage of a pipeline beside the next."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

# After this long a thread that is still inside one item is left to itself; it ends with the item.
_PATIENCE_SECONDS = 1.0

_POLL_SECONDS = 0.05

_NAME = "diffsep-stage"


class _LeftError(Exception):
    """Nobody wants the pipeline's items any more."""


def in_background(
    items: Generator[T], depth: int, left: threading.Event | None = None
) -> Generator[T]:
    """The same items, computed in a thread of their own, up to `depth` ahead.

    What `items` raises is raised here, after the items before it. Closing this generator closes
    `items`, in its thread.

    `left` belongs to all stages of a pipeline. Set it before closing the last: then none of them
    waits any more for an item of the one before it.
    """
    left = left or threading.Event()
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(is_item: bool, value: T | BaseException | None) -> bool:
        while not (stopped.is_set() or left.is_set()):
            try:
                waiting.put((is_item, value), timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                pass
        return False

    def take() -> tuple[bool, T | BaseException | None]:
        while True:
            try:
                return waiting.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if left.is_set():
                    raise _LeftError from None

    def run() -> None:
        try:
            for item in items:
                if not put(True, item):
                    break
            items.close()
        except BaseException as error:
            put(False, error)
        else:
            put(False, None)

    thread = threading.Thread(target=run, daemon=True, name=_NAME)
    thread.start()
    try:
        while True:
            is_item, value = take()
            if is_item:
                yield value  # type: ignore[misc]  # an item, of type T
            elif value is None:
                return
            else:
                assert isinstance(value, BaseException)
                raise value
    finally:
        stopped.set()
        thread.join(_PATIENCE_SECONDS)


def stages_alive() -> bool:
    """Whether threads of stages still run, such as those that were left to themselves."""
    return any(thread.name == _NAME for thread in threading.enumerate())

"""Worker processes: a map over items by workers that end with their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from diffsep_jax.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Results in the order in which they are ready; with one worker, in this process.

    An error, or Ctrl-C, kills the workers in the middle of their items. Raises `UserError` if a
    worker was killed from outside.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # Spawned, as forking a process that has threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=obey_parent) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException as error:
            for process in multiprocessing.active_children():
                process.kill()
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "a worker process was killed, perhaps for lack of memory; run the same"
                    " command again with fewer --workers"
                ) from None
            raise


def obey_parent() -> None:
    """Called in a new worker process: it ignores Ctrl-C and SIGTERM, and ends when the parent does.

    Both signals go to all processes of a command; the parent saves its work and closes the workers.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()

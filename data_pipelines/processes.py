"""What the worker processes of a command have in common."""

import multiprocessing
import os
import signal
import threading


def obey_parent() -> None:
    """In a new worker process: the parent alone decides when it ends, and ends it by ending.

    Ctrl-C and a scheduler's SIGTERM go to all processes of a command: the parent saves what is to
    be saved and closes the workers.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()

"""Other processes that tests start."""

import os
import socket
import subprocess
import sys


def python(*arguments, **environment):
    """What a program of Python's printed: `-c` and code, or a file, and its arguments."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def places(number):
    """Variables of the environment by which so many processes find each other on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(number),
            "JAX_PROCESS_ID": str(i),
        }
        for i in range(number)
    ]

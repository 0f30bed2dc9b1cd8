"""`diffsep app`: a web page to separate songs on."""

import dataclasses
import os
import signal
import socket
import tempfile
import threading
from typing import Annotated

from diffsep_jax.arguments import unset
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class App:
    """Serve a web page: drop a song, hear its parts at one position, refine and download them.

    Songs and results lie in a temporary folder, which is removed at the end (Ctrl-C).
    """

    model: str = "small"
    """Name of a model (see `diffsep models`), a model directory, or its URL: hf://user/name."""

    host: str = "127.0.0.1"
    """Address to listen on: by default this machine's own; 0.0.0.0 is every network's."""

    port: Annotated[int | None, unset("the first free one from 7860 on")] = None
    """Port to listen on."""

    share: bool = False
    """Show the page to the world for a week, through Gradio's servers."""

    max_minutes: float = 10.0
    """Length of the longest song that is taken."""

    max_megabytes: int = 200
    """Size of the largest file that is taken."""


def serve(command: App) -> None:
    """Serves the page until Ctrl-C or SIGTERM."""
    if not (command.max_minutes > 0 and command.max_megabytes > 0):
        raise UserError(
            f"max_minutes is {command.max_minutes}, max_megabytes is {command.max_megabytes};"
            " expected more than 0"
        )
    family = socket.AF_INET6 if ":" in command.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((command.host, command.port or 0))
    except (OSError, OverflowError):
        port = "" if command.port is None else f", port {command.port}"
        raise UserError(
            f"cannot listen on {command.host}{port}; expected an address of this machine and a"
            " free port"
        ) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="diffsep-app-") as folder:
        # Gradio reads them, some when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from diffsep_jax.app import LAUNCH, page

        blocks = page(command.model, max_minutes=command.max_minutes)
        _, url, public_url = blocks.launch(
            server_name=command.host,
            server_port=command.port,
            share=command.share,
            max_file_size=command.max_megabytes * 10**6,
            prevent_thread_lock=True,
            quiet=True,
            **LAUNCH,
        )
        print(f"{public_url or url}  (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            blocks.close(verbose=False)

"""The page of `diffsep app` with a model that halves its input:  python app_server.py FOLDER

A process of its own, as Gradio leaves event loops unclosed. In FOLDER it writes `settings`, those
of the last call of the model; and `hosts`, all that a connection or a name was asked for. The model
waits while there is a file `wait`.
"""

import os
import socket
import sys
import time
from pathlib import Path


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def record_hosts(file):
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def record(host):
        print(host.decode() if isinstance(host, bytes) else host, file=file, flush=True)

    def connecting(self, address):
        record(address[0])
        return connect(self, address)

    def resolving(host, *args, **kwargs):
        record(host)
        return resolve(host, *args, **kwargs)

    socket.socket.connect, socket.getaddrinfo = connecting, resolving


def main(folder):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        os.environ[name] = str(folder / "temporary")
    os.environ["GRADIO_IS_E2E_TEST"] = "1"  # a closed session is kept for a second
    record_hosts((folder / "hosts").open("w"))
    from halving import Halving, load_halving

    from diffsep_jax.app import LAUNCH, page
    from diffsep_jax.inference import separator

    class Waiting(Halving):
        def __call__(self, mixture, start, settings, guess=None):
            (folder / "settings").write_text(f"{settings} {guess is not None}")
            while (folder / "wait").exists():
                time.sleep(0.01)
            return super().__call__(mixture, start, settings, guess)

    separator.ChunkSeparator, separator.load_model = Waiting, load_halving
    blocks = page(max_minutes=0.05)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, max_file_size=10**6, **LAUNCH)
    print(url, flush=True)
    sys.stdin.read()  # until the test ends
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

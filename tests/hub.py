"""A server that speaks as much of the Hugging Face Hub's protocol as downloads need."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator, Mapping

COMMITS = {"main": "a" * 40, "old": "b" * 40}


class Hub(http.server.ThreadingHTTPServer):
    """Repositories, {"user/name": {revision: {file: content}}}.

    As on the hub, large files are on another host (here: another port), to which the answer
    redirects; these are the weights.

    Attributes:
        sizes: what is said of a file's size in place of the truth, by its name.
        cut: files of which the answer breaks off in the middle.
        requests: (method, path) of all for files.
    """

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, Mapping[str, bytes]]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.sizes: dict[str, int] = {}
        self.cut: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.blobs = {
            hashlib.sha256(content).hexdigest(): content
            for revisions in repositories.values()
            for files in revisions.values()
            for content in files.values()
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub = self.server
        if self.path.startswith("/api/"):  # what the client asks on its own
            self._fail("EntryNotFound")
            return
        hub.requests.append((self.command, self.path))
        if self.path.startswith("/blobs/"):
            self._send(hub.blobs[self.path.rsplit("/", 2)[1]])
            return
        user, name, _, revision, file = self.path.strip("/").split("/")
        revisions = hub.repositories.get(f"{user}/{name}")
        revision = {commit: name for name, commit in COMMITS.items()}.get(revision, revision)
        if revisions is None:
            self._fail("RepoNotFound")
        elif revision not in revisions:
            self._fail("RevisionNotFound")
        elif file not in revisions[revision]:
            self._fail("EntryNotFound", commit=COMMITS[revision])
        else:
            content = revisions[revision][file]
            digest = hashlib.sha256(content).hexdigest()
            if file == "model.safetensors":
                self.send_response(302)
                self.send_header("X-Repo-Commit", COMMITS[revision])
                self.send_header("X-Linked-ETag", f'"{digest}"')
                self.send_header("X-Linked-Size", str(hub.sizes.get(file, len(content))))
                self.send_header(
                    "Location", f"http://localhost:{hub.server_port}/blobs/{digest}/{file}"
                )
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._send(content, {"X-Repo-Commit": COMMITS[revision], "ETag": f'"{digest}"'})

    def _fail(self, code: str, commit: str | None = None) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        file = self.path.rsplit("/", 1)[1]
        self.send_response(200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(self.server.sizes.get(file, len(content))))
        self.end_headers()
        if self.command == "GET":
            half = file in self.server.cut
            self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self.close_connection = True

"""Headless Chromium, driven by its DevTools protocol over a pipe: pages as readers see them.

    python tests/browser.py PAGE PNG WIDTH FIRST LAST

takes a picture, WIDTH pixels wide, from the first element that the CSS selector FIRST finds to the
end of that of LAST.
"""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

_FLAGS = (
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of a running browser."""

    def __init__(self, commands, answers):
        self._commands, self._answers = commands, answers
        self._buffer, self._next, self._session = b"", 0, None
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def open(self, page, width, *, dark=False, height=900):
        """Shows a file, or what is at a URL, in a window of `width` pixels."""
        url = page if isinstance(page, str) else page.resolve().as_uri()
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._call("Page.navigate", url=url)
        self.wait(f"location.href == {json.dumps(url)} && document.readyState == 'complete'")

    def wait(self, condition):
        """Waits until an expression of JavaScript is true."""
        deadline = time.monotonic() + 60
        while not self.run(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)

    def choose(self, selector, path):
        """Gives a file to an input."""
        found = self._call(
            "Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})"
        )
        self._call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def run(self, script):
        """The value of an expression of JavaScript, or of its promise."""
        answer = self._call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,  # sounds play for a reader who has touched the page, as we do
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path, first="body", last="body", margin=12):
        """Writes a png of the page from one element's top to another's bottom."""
        top, bottom = self.run(
            f"[document.querySelector({json.dumps(first)}).getBoundingClientRect().top,"
            f" document.querySelector({json.dumps(last)}).getBoundingClientRect().bottom]"
        )
        y, end = max(0.0, top - margin), bottom + margin
        clip = {"x": 0, "y": y, "width": self.run("innerWidth"), "height": end - y, "scale": 1}
        shot = self._call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method, **params):
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._next:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has gone"
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@contextlib.contextmanager
def browser():
    """A browser with a profile of its own, gone afterwards."""
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        (ours_in, commands), (answers, ours_out) = os.pipe(), os.pipe()
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{ours_in} 4>&{ours_out}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(ours_in, ours_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (ours_in, ours_out):
            os.close(descriptor)
        for descriptor in (commands, answers):
            stack.callback(os.close, descriptor)
        try:
            yield Browser(commands, answers)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    page, png, width, first, last = sys.argv[1:]
    with browser() as window:
        window.open(pathlib.Path(page), int(width))
        window.screenshot(pathlib.Path(png), first, last)

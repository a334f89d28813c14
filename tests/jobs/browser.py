"""A browser without a window, told what to do over the DevTools protocol."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_SECONDS = 60
_COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


class Tab:
    """One tab: what the page complained of, and what it asked the network for."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._sent = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give one command and wait for its result."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while True:
            message = self._next()
            if message.get("id") == self._sent:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def open(self, page: Path, width: int, scheme: str = "light", height: int = 900) -> None:
        """Load a file in a window of ``width`` CSS pixels, and wait until it is drawn."""
        self.complaints.clear()
        self.requests.clear()
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        self.prefer(scheme)
        self.tell("Page.navigate", url=page.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass
        self.settle()

    def prefer(self, scheme: str) -> None:
        """Switch between ``light`` and ``dark``, as the system does while a page is open."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tell("Emulation.setEmulatedMedia", features=features)

    def settle(self) -> None:
        """Wait for two frames: what was changed is drawn then."""
        twice = "new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))"
        self.see(f"{twice}.then(() => true)")

    def see(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        found = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=_SECONDS))
        if message.get("method") in _COMPLAINTS:
            self.complaints.append(json.dumps(message["params"]))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with a fresh profile and one tab; it is closed at the end.

    Raises:
        RuntimeError: if there is none, or it does not start.
    """
    if CHROMIUM is None:
        raise RuntimeError("there is no chromium on PATH")
    process = subprocess.Popen(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with connect(_address(profile, process), max_size=None, proxy=None) as socket:
            yield Tab(socket)
            socket.send(json.dumps({"id": 0, "method": "Browser.close"}))
            process.wait(_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the tab, once the browser has written down its port."""
    written = profile / "DevToolsActivePort"
    until = time.monotonic() + _SECONDS
    while not (written.exists() and written.read_text().strip()):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the browser did not start (exit status {process.poll()})")
        time.sleep(0.05)
    connection = http.client.HTTPConnection("127.0.0.1", int(written.read_text().split()[0]))
    connection.request("GET", "/json/list")
    tabs = json.loads(connection.getresponse().read())
    connection.close()
    return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))

"""A real headless Chromium for tests and pictures, driven over its own DevTools pipe: no package, no port, no network.

Debian's `chromium` (or any Chrome on the PATH, or the one that CONSTRUCTIBLE_CHROMIUM names) is started with two pipes
on file descriptors 3 and 4; commands and replies are JSON ended by a NUL byte (Chromium: `--remote-debugging-pipe`).

As a program it takes pictures of a page, for the README:

    python -m tests.browser runs/quickstart/report.html docs/images/token.png --text split --element .viewer
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--hide-scrollbars",
    "--disable-dev-shm-usage", "--force-color-profile=srgb", "--mute-audio", "--password-store=basic",
    "--remote-debugging-pipe",
)  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)


def find_chromium() -> str | None:
    """Path of a Chromium, or None."""
    named = os.environ.get("CONSTRUCTIBLE_CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One Chromium process with a fresh profile; `open` gives pages. A context manager."""

    def __init__(self, executable: str, timeout_seconds: float = 60.0) -> None:
        self.timeout_seconds = timeout_seconds
        self._profile = tempfile.TemporaryDirectory(prefix="constructible-chromium-", ignore_cleanup_errors=True)
        read_end, self._write = os.pipe()
        self._read, write_end = os.pipe()
        # The shell puts the pipes on descriptors 3 and 4, where Chromium expects them.
        command = f'exec "$@" 3<&{read_end} 4>&{write_end}'
        arguments = [executable, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", *arguments],
            pass_fds=(read_end, write_end), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(read_end)
        os.close(write_end)
        self._buffer = bytearray()
        self._next = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process group that this object started."""
        for step in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, step)
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:
                    continue
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def command(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Send one DevTools command and return its result; events that arrive meanwhile are kept in `events`."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            reply = self._receive(deadline, method)
            if reply.get("id") == self._next:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error'].get('message')}")
                return reply["result"]
            self.events.append(reply)

    def _receive(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while (end := self._buffer.find(0)) < 0:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._read, 1 << 20) if ready else b""
            if not block:
                state = "closed its pipe" if ready else f"gave no answer in {self.timeout_seconds:.0f} s"
                raise RuntimeError(f"Chromium {state} (waiting for {waiting_for}; exit code {self._process.poll()})")
            self._buffer += block
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return json.loads(message)

    def open(
        self, page: str | Path, size: tuple[int, int] = DESKTOP, *, dark: bool = False, scale: float = 1.0
    ) -> Page:
        """Open a file (or the text of a page) at `size` CSS pixels; phones are those narrower than 600."""
        target = self.command("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.command("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        opened = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            opened.send(f"{domain}.enable")
        opened.resize(size, scale)
        opened.theme(dark)
        if isinstance(page, Path):
            url = page.resolve().as_uri()
        else:
            file = Path(self._profile.name) / f"page-{self._next}.html"
            file.write_text(page, encoding="utf-8")
            url = file.as_uri()
        opened.go(url)
        return opened


class Page:
    """One tab."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.browser, self.target, self.session = browser, target, session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command to this tab."""
        return self.browser.command(method, parameters, self.session)

    def go(self, url: str) -> None:
        """Load a page and wait until its scripts have run."""
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def resize(self, size: tuple[int, int], scale: float = 1.0) -> None:
        """Set the viewport in CSS pixels."""
        mobile = size[0] < 600
        self.send(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=scale, mobile=mobile
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def theme(self, dark: bool) -> None:
        """What the system prefers."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": "reduce"}]  # fmt: skip
        self.send("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; an exception in it is raised here."""
        reply = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return reply["result"].get("value")

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        """Wait until a JavaScript expression holds."""
        deadline = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise RuntimeError(f"still not so after {seconds} s: {condition}")
            time.sleep(0.02)

    def click(self, selector: str, index: int = 0) -> None:
        """A real press and release in the middle of the first line of an element, scrolled into view first."""
        x, y = self._place(selector, index)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def tap(self, selector: str, index: int = 0) -> None:
        """As `click`, with a finger."""
        x, y = self._place(selector, index)
        self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _place(self, selector: str, index: int) -> tuple[float, float]:
        # Lines drawn lazily get their height when they come into view, so scroll again once they have been drawn.
        place = self.run(
            f"(async () => {{ const e = document.querySelectorAll({json.dumps(selector)})[{index}];"
            " if (!e) return null; for (let i = 0; i < 3; i++) { e.scrollIntoView({block: 'center'});"
            " await new Promise((done) => requestAnimationFrame(() => setTimeout(done))); }"
            " const r = e.getClientRects()[0]; return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        if place is None:
            raise RuntimeError(f"no element {selector} [{index}]")
        return place[0], place[1]

    def press(self, key: str, text: str = "") -> None:
        """A key by its name, for example "ArrowRight" or "Enter"."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        text = text or {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        shared = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
        self.send("Input.dispatchKeyEvent", type="keyUp", **shared)

    def overflow(self) -> int:
        """CSS pixels by which the page is wider than its window (0 = no horizontal scroll)."""
        return self.run(
            "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
            " - document.documentElement.clientWidth"
        )

    def problems(self) -> list[str]:
        """Console errors, uncaught exceptions and attempts to reach anything but the page's own file."""
        self.run("0")
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            parameters = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))
            elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(parameters["entry"]["text"])
            elif event["method"] == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if not url.startswith(("file:", "about:", "data:")):
                    found.append(f"request to {url}")
        return found

    def screenshot(self, path: str | Path, element: str | None = None, whole: bool = False) -> Path:
        """PNG of the window, of one element, or of the whole page."""
        margin = 14
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole or element is not None}
        if options["captureBeyondViewport"]:
            # What lies outside the window is otherwise left blank where the page draws lazily.
            self.run(
                "void document.head.append(Object.assign(document.createElement('style'),"
                " {textContent: '.ln { content-visibility: visible !important; }'}))"
            )
        if element is not None:
            box = self.run(
                f"(() => {{ const r = document.querySelector({json.dumps(element)}).getBoundingClientRect();"
                " return [r.left + scrollX, r.top + scrollY, r.width, r.height]; })()"
            )
            options["clip"] = {
                "x": max(0, box[0] - margin), "y": max(0, box[1] - margin),
                "width": box[2] + 2 * margin, "height": box[3] + 2 * margin, "scale": 1,
            }  # fmt: skip
        elif whole:
            size = self.run("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
            options["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        data = self.send("Page.captureScreenshot", **options)["data"]
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
        return path

    def close(self) -> None:
        """Close the tab."""
        self.browser.command("Target.closeTarget", {"targetId": self.target})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of one module; skipped where there is none, except in CI."""
    executable = find_chromium()
    if executable is None:
        message = "no Chromium found (Debian: apt-get install chromium; or set CONSTRUCTIBLE_CHROMIUM)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    with Browser(executable) as started:
        yield started


def main(arguments: list[str] | None = None) -> None:
    """Take one picture of a page."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description="Take a picture of a page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--width", type=int, default=DESKTOP[0])
    parser.add_argument("--height", type=int, default=DESKTOP[1])
    parser.add_argument("--scale", type=float, default=2.0, help="device pixels per CSS pixel")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--token", type=int, help="choose this token of the explained file")
    parser.add_argument("--text", help="choose the first token that reads like this, spaces aside")
    parser.add_argument("--element", help="CSS selector of what to picture; the window by default")
    parser.add_argument("--whole", action="store_true", help="the whole page")
    options = parser.parse_args(arguments)
    executable = find_chromium()
    if executable is None:
        parser.error("no Chromium found; apt-get install chromium, or set CONSTRUCTIBLE_CHROMIUM")
    if not options.page.is_file():
        parser.error(f"no such page: {options.page}")
    with Browser(executable) as browser:
        page = browser.open(options.page, (options.width, options.height), dark=options.dark, scale=options.scale)
        token = options.token
        if options.text is not None:
            same = f"(e) => e.textContent.trim() === {json.dumps(options.text.strip())}"
            token = page.run(f"[...document.querySelectorAll('.v-code [data-i]')].find({same})?.dataset.i")
            if token is None:
                parser.error(f"no token reads {options.text!r}")
        if token is not None:
            page.click(f'.v-code [data-i="{token}"]')
        page.screenshot(options.png, options.element, options.whole)
    print(options.png)


if __name__ == "__main__":
    main()

"""A page in headless Chromium, driven over the pipe that its DevTools protocol has: no port, no further library."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Page:
    """An open page; ``messages`` holds everything that it wrote to the console, and every error."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._next, self._rest, self._session = 0, b"", ""
        self.messages: list[str] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._back, 1 << 20)
            if not more:
                raise RuntimeError("Chromium has ended")
            self._rest += more
        text, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(text)
        if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(json.dumps(answer["params"])[:600])
        return answer

    def open(
        self, file: Path, width: int, height: int = 900, *, downloads: Path | None = None, dark: bool = False
    ) -> None:
        """Open a file at this size, and wait until everything is drawn."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)
        if downloads is not None:
            self.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self.send("Performance.enable", timeDomain="threadTicks")
        self.send("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.documentElement?.dataset.drawn === 'yes'")

    def run(self, expression: str) -> Any:
        """What an expression is in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:600])
        return result["result"].get("value")

    def busy_seconds(self) -> float:
        """Processor time that the thread of the page has taken since it was opened."""
        metrics = {entry["name"]: entry["value"] for entry in self.send("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    def seconds_until_drawn(self) -> float:
        """Time by the browser's clock from the navigation until everything was drawn."""
        return float(self.run("performance.getEntriesByName('drawn')[0].startTime")) / 1000

    def wait(self, expression: str, seconds: float = 40) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(expression):
            if time.monotonic() > until:
                raise TimeoutError(f"never true: {expression}; {self.messages}")
            time.sleep(0.05)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Move, press or release the left button."""
        pressed = {"buttons": 0 if kind == "Released" else 1, "button": "left", "clickCount": 1}
        if kind == "Moved":
            pressed = {}
        self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **pressed)

    def draw(self, spots: list[tuple[float, float]]) -> None:
        """Drag the mouse along these spots."""
        self.mouse("Pressed", *spots[0])
        for x, y in spots:
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.mouse("Released", *spots[-1])

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, scrolled into sight."""
        found = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        return found[0], found[1], found[2], found[3]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A picture of what is seen, or of the whole page."""
        params: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            params["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", **params)["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser; a test is skipped, or fails under CI, where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing = "Chromium is not installed: apt-get install chromium"
        if os.environ.get("CRYODC_REQUIRE_VIEWER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    theirs_in, to = os.pipe()
    back, theirs_out = os.pipe()
    command = [
        program, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
        "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", f"--user-data-dir={profile}",
        "--remote-debugging-pipe", "about:blank",
    ]  # fmt: skip

    # Chromium reads commands at descriptor 3 and answers at 4.
    wired = ["bash", "-c", 'exec "$@" 3<&"$IN" 4>&"$OUT"', "bash", *command]
    environment = os.environ | {"IN": str(theirs_in), "OUT": str(theirs_out)}
    process = subprocess.Popen(
        wired, pass_fds=(theirs_in, theirs_out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(process, to, back)
    finally:
        process.terminate()
        process.wait(20)
        os.close(to)
        os.close(back)

"""Look at every page of a built site in headless Chromium, at two widths, light and dark, and print what is wrong.

python .ci/browse.py docs/build/html [--shots FOLDER] [page.html ...]

Wrong are a page or an element wider than the window, text of too little contrast (WCAG AA), a figure without an
alternative text, an error on the console and a request that leaves the folder. Chromium is steered through a pipe:
nothing else is needed.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

LOOK = Path(__file__).with_suffix(".js").read_text()


class Browser:
    """Chromium behind a pipe of its developer protocol: messages are JSON that end with a zero byte."""

    def __init__(self, profile):
        program = shutil.which("chromium") or shutil.which("google-chrome")
        to_it, self.out = os.pipe()
        self.inn, from_it = os.pipe()
        shell = f'exec "$0" "$@" 3<&{to_it} 4>&{from_it}'  # the protocol is spoken on descriptors 3 and 4
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        command = ["bash", "-c", shell, program, *flags, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            piece = os.read(self.inn, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium has ended")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def __call__(self, method, **parameters):
        self.number += 1
        sent = {"id": self.number, "method": method, "params": parameters}
        os.write(self.out, json.dumps(sent | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while (message := self.message()).get("id") != self.number:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def evaluate(self, script):
        result = self("Runtime.evaluate", expression=script, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def open(self, url, width, scheme):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self("Emulation.setDeviceMetricsOverride", **size)
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # no color on its way to another
        self("Emulation.setEmulatedMedia", features=[{"name": name, "value": wishes[name]} for name in wishes])
        self.events.clear()
        self("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())
        time.sleep(0.2)  # scripts that run after the page is there

    def complaints(self):
        """What went wrong beside the page itself."""
        for event in self.events:
            method, said = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(("file:", "data:")):
                yield f"asks for {said['request']['url'][:100]}"
            elif method == "Runtime.exceptionThrown":
                details = said["exceptionDetails"]
                yield f"error: {details.get('exception', {}).get('description', details['text'])[:200]}"
            elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
                yield f"error: {said['args'][:1]}"
            elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
                yield f"error: {said['entry']['text'][:100]} {said['entry'].get('url', '')}"

    def shot(self, path, width, height):
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 16_000), "scale": 1}
        picture = self("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(picture))


def look(folder, pages, shots):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        for page in pages:
            for width in (1400, 400):
                for scheme in ("light", "dark"):
                    browser.open((folder / page).as_uri(), width, scheme)
                    theme = browser.evaluate("document.documentElement.dataset.theme + ' ' + innerWidth")
                    if theme != f"{scheme} {width}":
                        yield f"{page} {width} {scheme}: was shown as {theme}"
                    seen = json.loads(browser.evaluate(LOOK))
                    for fault in dict.fromkeys([*seen["found"], *browser.complaints()]):
                        yield f"{page} {width} {scheme}: {fault}"
                    if shots:
                        name = f"{page.with_suffix('')}".replace("/", "_")
                        browser.shot(shots / f"{name}-{width}-{scheme}.png", width, seen["height"])
        browser("Browser.close")
        browser.process.wait(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=lambda given: Path(given).resolve())
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    pages = given.pages or sorted(
        path.relative_to(given.folder) for path in given.folder.rglob("*.html") if "_static" not in path.parts
    )
    found = 0
    for fault in look(given.folder, pages, given.shots):
        found += 1
        print(fault, flush=True)
    raise SystemExit(bool(found or not pages))

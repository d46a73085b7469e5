"""Look at every page of a built site in headless Chromium, at two widths, light and dark, and print what is wrong.

    pip install playwright
    python .ci/browse.py docs/build/html [--shots FOLDER] [page.html ...]

Wrong are a page or an element wider than the window, text of too little contrast (WCAG AA), a figure without an
alternative text, an error on the console and a request that leaves the folder.
"""

import argparse
import json
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

LOOK = Path(__file__).with_suffix(".js").read_text()


def look(folder, pages, shots):
    with sync_playwright() as playwright:
        # Chromium of the system, or the one of `playwright install chromium`
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in (1400, 400):
            for scheme in ("light", "dark"):
                size = {"width": width, "height": 900}
                # no color on its way to another
                context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
                tab, heard = context.new_page(), []
                tab.on("pageerror", lambda error, heard=heard: heard.append(f"error: {error}"))
                tab.on(
                    "console", lambda said, heard=heard: said.type == "error" and heard.append(f"error: {said.text}")
                )
                tab.on("request", lambda asked, heard=heard: heard.append(f"asks for {asked.url}"))
                for page in pages:
                    heard.clear()
                    tab.goto((folder / page).as_uri())
                    tab.wait_for_timeout(200)  # scripts that run after the page is there
                    seen = json.loads(tab.evaluate(LOOK))
                    outside = [line for line in heard if not line.startswith(("asks for file:", "asks for data:"))]
                    for fault in dict.fromkeys([*seen["found"], *outside]):
                        yield f"{page} {width} {scheme}: {fault}"
                    theme = tab.evaluate("document.documentElement.dataset.theme")
                    if theme not in (None, scheme):
                        yield f"{page} {width} {scheme}: was shown as {theme}"
                    if shots:
                        name = f"{page.with_suffix('')}".replace("/", "_")
                        tab.screenshot(path=shots / f"{name}-{width}-{scheme}.png", full_page=True)
        browser.close()


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

"""Check a built site: links within it lead somewhere, and nothing that a page needs comes from elsewhere.

python .ci/links.py docs/build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links and names of a page, what it loads, and figures without a text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.names, self.without_text = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "img" and given.get("alt") is None:  # "" is said of one beside its title
            self.without_text.append(given.get("src"))
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(given["href"])


def faults(folder):
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    for path, page in pages.items():
        where = path.relative_to(folder.resolve())
        for source in page.loads:
            if urlsplit(source).netloc:
                yield f"{where} loads {source} from elsewhere"
        for source in page.without_text:
            yield f"{where}: the figure {source} has no alternative text"
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{where}: {link} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                yield f"{where}: {link} names no place of its page"
    if not pages:
        yield f"{folder} has no pages"


if __name__ == "__main__":
    found = sorted(set(faults(Path(sys.argv[1]))))
    print(*found, sep="\n")
    raise SystemExit(bool(found))

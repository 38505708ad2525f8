"""Put the documents that lie outside of `docs/` into the site, and lead links to where they are.

On disk every link is relative to the file that it stands in, so that it works in a checkout too.
In the site README.md is the start page, and what a page links to outside of `docs/` is taken along.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

PAGES = {
    "README.md": "index.md",
    "nginx-example/README.md": "nginx-example/index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report-a-vulnerability.md",
    "CHANGELOG.md": "changelog.md",
    "bench/results.md": "bench/results.md",
}
"""Pages from outside of `docs/`, and their place in the site."""

_SOURCES = {place: source for source, place in PAGES.items()}
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and the files that pages link to."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for page in list(files.documentation_pages()):
        source = _source(page.src_uri)
        for target in _targets((ROOT / source).read_text(), source):
            place = _place(target)
            if (ROOT / target).is_file() and place not in files.src_uris:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead each link to its target's place in the site; a folder's name is no link there."""
    here = page.file.src_uri
    source = _source(here)

    def lead(found: re.Match[str]) -> str:
        target = _resolved(found["target"], source)
        if (ROOT / target).is_dir():
            return found["text"]
        place = posixpath.relpath(_place(target), posixpath.dirname(here) or ".")
        return f"[{found['text']}]({place}{found['anchor'] or ''})"

    return _LINK.sub(lead, markdown)


def _source(place: str) -> str:
    """The path in the project of a page of the site."""
    return _SOURCES.get(place, f"docs/{place}")


def _place(path: str) -> str:
    """The place in the site of a file of the project."""
    return PAGES.get(path) or (path.removeprefix("docs/"))


def _resolved(target: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _targets(text: str, source: str) -> Iterator[str]:
    return (_resolved(found["target"], source) for found in _LINK.finditer(text))

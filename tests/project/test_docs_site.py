"""The documents as a site: it builds, stands alone, and has no dead link; nor have the files."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from pages import ROOT, anchors, links, pages


class _Html(HTMLParser):
    """A page's links, what it loads, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical" and "href" in found:
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Html]:
    """The pages of the built site, by their path in it."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    found = {}
    for path in place.rglob("*.html"):
        if path.name != "404.html":
            page = _Html()
            page.feed(path.read_text())
            found[str(path.relative_to(place))] = page
    for path in place.rglob("*"):
        if path.is_file() and path.suffix != ".html":
            found[str(path.relative_to(place))] = _Html()
    return found


def test_the_site_loads_nothing_from_elsewhere(site: dict[str, _Html]) -> None:
    """No fonts, scripts or pictures of other hosts: reading it tells nobody."""
    for name, page in site.items():
        for target in page.loads:
            assert not urlsplit(target).netloc, f"{name} loads {target}"


def test_every_link_of_the_site_leads_somewhere(site: dict[str, _Html]) -> None:
    """To a page or file of the site, and to an anchor that is there."""
    count = 0
    for name, page in site.items():
        for target in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target in ("", "."):
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
            if not parts.path:
                path = name
            if path not in site:
                path = posixpath.normpath(posixpath.join(path, "index.html"))
            assert path in site, f"{name} links to {target}"
            if parts.fragment and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in site[path].ids, f"{name} links to {target}"
            count += 1
    assert count > 500


def test_every_page_is_in_the_order_of_reading() -> None:
    """Start, how to, reference, explanation, project; a new page is put where it belongs."""
    text = (ROOT / "mkdocs.yml").read_text()
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    assert [next(iter(part)) for part in nav] == [
        "Start",
        "How to",
        "Reference",
        "Explanation",
        "Project",
    ]
    listed = {
        page for part in nav for pages in part.values() for each in pages for page in each.values()
    }
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= listed


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_of_a_document_is_dead(page: Path) -> None:
    """In a checkout: the file is there, inside of it, and has the heading."""
    for line, target in links(page):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", f"{page.name}:{line}: {target}"
            continue
        path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert path.exists(), f"{page.name}:{line}: {target}"
        assert path.is_relative_to(ROOT), f"{page.name}:{line}: {target}"
        if parts.fragment:
            assert parts.fragment in anchors(path), f"{page.name}:{line}: {target}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_document_names_is_there(page: Path) -> None:
    """The table of attacks names the test that shows each."""
    if page.name == "CHANGELOG.md":
        return  # it tells of the past
    for name in re.findall(r"`((?:[\w-]+/)*test_\w+\.py)`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), f"{page.name}: {name}"


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    """Links in code are none; headings give the anchors that GitHub gives."""
    page = tmp_path / "x.md"
    page.write_text("# A `b_c`, d-e\n\n[x](y.md#z) `[no](link)`\n\n```sh\n# [no](link)\n```\n")
    assert list(links(page)) == [(3, "y.md#z")]
    assert anchors(page) == {"a-b_c-d-e"}

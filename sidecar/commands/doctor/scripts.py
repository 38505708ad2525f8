"""Find scripts that run for other URIs than the ones that are asked about.

PHP takes what follows a script's name for the script's own business (PATH_INFO): /wp-login.php/x is
wp-login.php, which `location = /wp-login.php` doesn't cover.  And a script that serves every path
takes itself off its beginning: /index.php/admin/ is /admin/ to Symfony, Laravel and Nextcloud.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .access import is_reached
from .findings import Finding
from .nginx_config import Block
from .routing import REGEX, captures, destination, literal_prefixes, matches, serving
from .server import Server, question
from .targets import passes
from .variables import plain_variables

_SCRIPT = re.compile(r"(?P<script>/[\w./-]*\.php)(?:[?$].*)?")


def run_elsewhere(server: Server, findings: list[Finding]) -> None:
    """Each location that asks about a script, or by way of one, which another runs as well."""
    for here in server.locations:
        if not server.keeps(here) or not is_reached(here):
            continue
        for script, uri in _uris(here):
            other = serving(server.block, uri)
            if other is None or not server.is_open_to_clients(other):
                continue
            if question(other) != question(here) and _runs(other, script, uri, server):
                findings.append(_finding(here, other, script, uri))
                break


def _uris(here: Block) -> Iterator[tuple[str, str]]:
    """The scripts that a location runs, each with another URI by which it may run."""
    path = here.args[-1]
    for script in _named(here):
        yield script, f"{script}/x"
        yield script, f"{script}/x.php"
    if here.args[0] in ("=", *REGEX) or path == "/":
        return
    for each in here.own("try_files"):
        if found := _SCRIPT.fullmatch(each.args[-1]):
            yield found["script"], f"{found['script']}{path}"


def _named(here: Block) -> list[str]:
    """The scripts for which alone a location is, by their names."""
    if here.args[0] == "=":
        return [here.args[-1]] if here.args[-1].endswith(".php") else []
    if here.args[0] not in REGEX:
        return []
    ignore_case = here.args[0] == "~*"
    return [
        each
        for each in literal_prefixes(here.args[-1]) or []
        if each.endswith(".php") and matches(here.args[-1], each, ignore_case)
    ]


def _runs(other: Block, script: str, uri: str, server: Server) -> bool:
    """Whether a location runs this script for the URI."""
    tried = other.own("try_files")
    if not passes(other):
        found = [_SCRIPT.fullmatch(each.args[-1]) for each in tried]
        return uri.startswith(f"{script}/") and any(e and e["script"] == script for e in found)
    by_fastcgi = list(other.within("fastcgi_pass"))
    runner = destination(server.block, script)
    shared = server.served(runner) & server.served(other) if runner is not None else set[str]()
    if not shared:
        return False
    if not by_fastcgi:
        return bool(list(other.within("proxy_pass")))
    names = [e.args[1] for e in other.inherited("fastcgi_param") if e.args[0] == "SCRIPT_FILENAME"]
    if names and "$" not in names[-1]:
        return False
    split = other.inherited("fastcgi_split_path_info")
    head = (captures(split[-1].args[0], uri) or {}).get("1", "") if split else ""
    if any("$uri" in map(plain_variables, each.args[:-1]) for each in tried):
        return False  # there is no such file
    return not head or head == script


def _finding(here: Block, other: Block, script: str, uri: str) -> Finding:
    asked = question(other) or "nobody"
    what = (
        f"{script} runs for {uri} as well, where {asked} is asked ({other.line_from(here)}), "
        f"and not {question(here)}"
    )
    write = f"location ^~ {script} {{ auth_request {question(here)}; … }}"
    if here.args[0] not in ("=", *REGEX):
        write = f"location ^~ {script}/ {{ return 404; }}"
    return Finding("script-path", here.file, here.line, what, write)

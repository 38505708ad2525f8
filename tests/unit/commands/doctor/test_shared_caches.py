"""A cache shows no server what another one has asked about."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from good_nginx import GOOD, found

CACHE = "proxy_cache pages; proxy_cache_key $request_uri;"
BY_HOST = CACHE.replace("$request", "$host$request")
BY_PORT = CACHE.replace("$request", "$server_port$request")
BY_NAME = CACHE.replace("$request", "$server_name$request")
OTHER = "location / { proxy_pass http://other; }"


def told(mine: str, other: str, directory: Path) -> bool:
    text = GOOD.replace("auth_request /authz/site;", f"auth_request /authz/site; {mine}")
    listen = "" if "listen" in other else "listen 80;"
    text = text.replace("http {", f"http {{ server {{ {listen} {other} }} ", 1)
    return ("never-asks", 1) in found(text, directory)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        (CACHE, CACHE + OTHER),
        (CACHE, OTHER.replace("proxy_pass", CACHE + "proxy_pass")),
        (CACHE.replace("$request_uri", "$uri$is_args$args"),
         CACHE.replace("$request_uri", "${uri}$is_args$args") + OTHER),
        (BY_HOST, BY_HOST + OTHER),
        (BY_HOST, f"server_name a; listen 443; listen 80; {BY_HOST} {OTHER}"),
        (CACHE.replace("$request", "$http_host$request"),
         "server_name a; listen *:443;" + CACHE.replace("$request", "$http_host$request") + OTHER),
        (BY_PORT,
         "server_name a; listen *:443;" + BY_PORT + OTHER),
        (BY_NAME,
         BY_NAME + OTHER),
    ],
)  # fmt: skip
def test_one_key_for_two_servers(mine: str, other: str, tmp_path: Path) -> None:
    """It names the path alone."""
    assert told(mine, other, tmp_path)


def test_hundreds_of_servers(tmp_path: Path) -> None:
    """Beside each other, and at another address, take no more than moments."""
    kept = f"location / {{ auth_request /authz; {BY_HOST} proxy_pass http://app; }}"
    servers = "".join(
        f"server {{ listen 443; server_name {i}; {kept} }} "
        f"server {{ listen 443; listen 80; server_name b{i}; {BY_HOST} {OTHER} }} "
        for i in range(200)
    )
    begun = time.monotonic()
    found(GOOD.replace("http {", f"http {{ {servers}", 1), tmp_path)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        (CACHE, OTHER),
        (CACHE, CACHE.replace("pages", "others") + OTHER),
        (CACHE, CACHE.replace("$request", "$host$request") + OTHER),
        (BY_HOST, f"server_name a; listen 0.0.0.0:443; {BY_HOST} {OTHER}"),
        (
            BY_HOST.replace("$host", "$scheme$host"),
            BY_HOST.replace("$host", "$scheme$host") + OTHER,
        ),
        (
            BY_PORT,
            BY_PORT + OTHER,
        ),
        (
            BY_NAME,
            "server_name a;" + BY_NAME + OTHER,
        ),
        (CACHE.replace("$request", "$scheme$http_host$request"), CACHE + OTHER),
        ("proxy_cache pages;", "proxy_cache pages;" + OTHER),
        (CACHE, CACHE + "location / { return 404; }"),
        (CACHE, CACHE + OTHER.replace("proxy_pass", "deny all; proxy_pass")),
        (
            "proxy_cache off; proxy_cache_key $uri;",
            "proxy_cache off; proxy_cache_key $uri;" + OTHER,
        ),
    ],
)
def test_keys_of_their_own(mine: str, other: str, tmp_path: Path) -> None:
    """By the host, nginx's own, another zone; nothing is shown."""
    assert not told(mine, other, tmp_path)

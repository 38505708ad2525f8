"""`page-from-client`: another authorizer is told by the client which page it decides about."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

PUBLIC = "location /public/ { auth_request off; }"
OTHER = "location /other/ { auth_request QUESTION; proxy_pass http://other; } "
AUTHENTIK = OTHER.replace("QUESTION", "/outpost.goauthentik.io/auth/nginx") + (
    "location /outpost.goauthentik.io { auth_request off; proxy_pass_request_body off; "
    "proxy_pass http://a:9000/outpost.goauthentik.io; HEADERS }"
)
AUTHELIA = OTHER.replace("QUESTION", "/internal/authelia/authz") + (
    "location /internal/authelia/authz { internal; proxy_pass_request_body off; "
    "set $upstream http://a:9091/api/authz/auth-request; proxy_pass $upstream; HEADERS }"
)
URI = 'proxy_set_header X-Original-URI "";'
URL = "proxy_set_header X-Original-URL $scheme://$http_host$request_uri;"
METHOD = "proxy_set_header X-Original-Method $request_method;"
NONE = "proxy_pass_request_headers off;"


@pytest.mark.parametrize(
    ("text", "headers", "times"),
    [
        (AUTHENTIK, "", 2),
        (AUTHENTIK, URL, 1),
        (AUTHENTIK, URL + URI, 0),
        (AUTHENTIK, NONE, 0),
        (AUTHENTIK, NONE + URL, 0),
        (AUTHENTIK, NONE + URL + "proxy_set_header X-Original-URI $http_x_original_uri;", 1),
        (AUTHELIA, "", 2),
        (AUTHELIA, URL, 1),
        (AUTHELIA, METHOD, 1),
        (AUTHELIA, URL + METHOD, 0),
        (AUTHELIA, URL.upper().replace("PROXY_SET_HEADER", "proxy_set_header") + METHOD, 0),
        (AUTHELIA.replace("/api/authz/auth-request", "/api/verify"), URL, 0),
        (AUTHELIA.replace("/api/authz/auth-request", "/api/verify"), "", 1),
        (AUTHELIA.replace("/api/authz/auth-request", "/validate"), "", 0),
        (AUTHELIA.replace("/api/authz/auth-request", "/oauth2/auth"), "", 0),
        (AUTHELIA.replace("$upstream;", "$somewhere;"), "", 0),
    ],
)
def test_the_page_is_named_by_nginx(text: str, headers: str, times: int, tmp_path: Path) -> None:
    """Of an authorizer that is known, each header that names it; of others nothing is told."""
    told = found(GOOD.replace(PUBLIC, text.replace("HEADERS", headers)), tmp_path)
    assert [each[0] for each in told] == ["page-from-client"] * times

"""A location whose path the client writes: `doctor` names it, and a stranger gets in by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from examined import CONF, POLICY, found
from stack import Stack
from tools import NginxBinary

OFF = "auth_request off;"
ASKED = "location / { auth_request /authz/site; "


@pytest.mark.parametrize(
    ("line", "uri"),
    [
        (f"location ~ ^/pages/(.*)$ {{ {OFF} proxy_pass http://app/$1; }}", "/pages/in"),
        (
            f"location ~ ^/pages/(?<rest>.*) {{ {OFF} set $to http://app; proxy_pass $to/$rest; }}",
            "/pages/in",
        ),
        (
            f"location ~ ^/pages/ {{ {OFF} rewrite ^/pages/(.*)$ /$1 break; "
            "proxy_pass http://app; }",
            "/pages/in",
        ),
        (f"location = /page {{ {OFF} proxy_pass http://app$arg_u; }}", "/page?u=/in"),
    ],
)
def test_a_path_that_the_client_writes(
    line: str, uri: str, nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """By what an expression captures, also of a `rewrite`, and by an argument."""
    conf = CONF.replace(ASKED, f"{line} {ASKED}")
    with Stack(nginx_binary, tmp_path, conf=conf, policy=POLICY) as stack:
        assert found(stack) == {"prefix-replaced"}
        assert stack.get("/in").status == 401
        answer = stack.get(uri).app
        assert answer is not None
        assert answer["uri"] == "/in"

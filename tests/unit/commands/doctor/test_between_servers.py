"""A server that asks nobody is held against what another one keeps, however it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, POLICY, found

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

ASKING = "location / { auth_request /authz/site; proxy_pass http://app; }"
SITE = "location / { auth_request /authz/site; root /srv/www; }"
PUBLIC = "location /public/ { auth_request off; }"


def beside(server: str, tables: str = "", asking: str = ASKING) -> str:
    """The good configuration, and another server on its first line."""
    text = GOOD.replace("http://app", "http://127.0.0.1:9").replace(
        ASKING.replace("http://app", "http://127.0.0.1:9"),
        asking.replace("http://app", "http://127.0.0.1:9"),
    )
    return text.replace("http {", f"http {{ {tables} server {{ listen 80; {server} }} ", 1)


@pytest.mark.parametrize(
    ("tables", "server"),
    [
        ("map $host $b { hostnames; default 127.0.0.1:9; a 127.0.0.1:8; }", "proxy_pass http://$b"),
        ("map $host $b { default localhost:$c; } geo $c { default 9; }", "proxy_pass http://$b"),
        ("split_clients $remote_addr $b { 1% 127.0.0.1:8; * 127.0.0.1:9; }",
         "proxy_pass http://${b}/"),
        ("", "set $b 127.0.0.1:8; if ($arg_x) { set $b 127.0.0.1:9; } proxy_pass http://$b"),
        ("", "if ($arg_x) { set $B 127.0.0.1:9; } proxy_pass http://$b"),
        ("", "proxy_pass http://127.1:9"),
        ("", "proxy_pass http://[::ffff:127.0.0.1]:9"),
        ("", "proxy_pass http://[0:0:0:0:0:FFFF:7f00:1]:9"),
        ("", "proxy_pass http://localhost.:9"),
        ("", "proxy_pass http://ip6-localhost:9"),
        ("", "proxy_pass http://[0:0:0:0:0:0:0:1]:9"),
        ("", "proxy_pass http://127.0.0.1:09"),
        ("", "proxy_pass http://0x7f000001:9"),
        ("", "proxy_pass http://2130706433:9"),
    ],
)  # fmt: skip
def test_one_address_in_many_ways(tables: str, server: str, tmp_path: Path) -> None:
    """A variable that a map, geo or split_clients decides, and other spellings of 127.0.0.1."""
    text = beside(f"location / {{ {server}; }}", tables)
    assert ("never-asks", 1) in found(text, tmp_path)
    other = text.replace(
        "{ auth_request /authz/site; proxy_pass http://127.0.0.1:9",
        "{ auth_request /authz/site; proxy_pass http://127.0.0.1:7",
    )
    assert found(other, tmp_path) == []


@pytest.mark.parametrize(
    "server",
    [
        "deny all; location / { allow all; root /srv/www; }",
        "root /srv/www/private;",
        "root /srv;",
        "root /srv//www/;",
        "root /srv/./x/../www;",
        "set $r /srv/www; root $r;",
        "root $r/www; location / { set $r /srv; }",
        "set $r /srv/a; if ($arg_x) { set $r /srv/www; } root $r;",
        r"location ~ \.txt$ { root /srv/www; }",
        "location ~ ^/s/(.*)$ { alias /srv/www/$1; }",
        "location /a/ { alias /srv/www/a/; }",
        "location /a/ { alias /srv/www/; deny all; location /a/c/ { allow all; } }",
    ],
)
def test_one_directory_in_many_ways(server: str, tmp_path: Path) -> None:
    """Below, above, by a regular expression, and where the server's `deny` doesn't hold."""
    assert ("never-asks", 1) in found(beside(server, asking=SITE), tmp_path)


@pytest.mark.parametrize(
    "server",
    [
        "deny all; location / { root /srv/www; }",
        "location ^~ /.well-known/acme-challenge/ { root /srv/www; } location / { return 301 /; }",
        r"location ~ /\.well-known/ { root /srv/www; }",
        "location = /a.txt { root /srv/www; }",
        "root /srv/www2;",
        "root /srv/www/public;",
    ],
)
def test_other_directories(server: str, tmp_path: Path) -> None:
    """Closed, ACME, a single file, another directory, or one that the other shows to anybody."""
    text = beside(server, asking=SITE).replace(
        PUBLIC, "location /public/ { auth_request off; root /srv/www; }"
    )
    assert found(text, tmp_path) == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [("", True), (" $host:443", True), (" 127.0.0.1:9", True), (" other:443", False)],
)
@pytest.mark.parametrize(
    "place", ["tunnel_pass%s;", "location / { auth_request off; tunnel_pass%s; }"]
)
def test_a_tunnel(place: str, target: str, expected: bool, tmp_path: Path) -> None:
    """`tunnel_pass` without a constant address, or to the application's own."""
    told = found(beside(place % target), tmp_path)
    assert (("tunnel", 1) in told) == expected
    assert expected or told == []


BY_EXPRESSION = r"location ~* ^/private/.*\.pdf$ { auth_request /authz/site; root /srv/www; }"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("root /srv/www;", True),
        ("root /srv;", True),
        ("location /private/ { root /srv/www; }", True),
        (r"location ~ \.pdf$ { root /srv/www; }", True),
        ("root /srv/www/private/2024;", True),
        ("root /srv/www/blog;", False),
        ("location / { return 404; }", False),
    ],
)
def test_a_directory_kept_by_an_expression(server: str, expected: bool, tmp_path: Path) -> None:
    """What only a regular expression asks about is kept like what a prefix asks about."""
    told = found(beside(server, asking=BY_EXPRESSION), tmp_path)
    assert (("never-asks", 1) in told) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ("auth_request /authz/site; root /srv/www;", True),
        ("auth_request /authz/site; root /srv/;", False),
        ("auth_request /authz/site; alias /srv/www/private/b.pdf;", True),
        ("auth_request off; root /srv/www;", False),
    ],
)
def test_a_directory_of_one_file_that_is_kept(one: str, expected: bool, tmp_path: Path) -> None:
    """A single file is shown by whoever shows its directory."""
    server = "location /private/ { root /srv/www; }"
    asking = f"location = /private/a.pdf {{ {one} }} location / {{ deny all; }}"
    told = found(beside(server, asking=asking), tmp_path)
    assert (("never-asks", 1) in told) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("///run/app.sock", "/run/app.sock"),
        ("/var/run/app.sock", "/run/app.sock"),
        ("/run/App.sock", "/run/App.sock"),
    ],
)
def test_one_socket_in_many_ways(one: str, other: str, tmp_path: Path) -> None:
    """uWSGI's documentation writes unix:///run/app.sock; /var/run is /run."""
    app = f"upstream back {{ server unix:{one}; }}"
    asking = ASKING.replace("http://app", "http://back")
    for place in (other, other.replace("pp", "qq")):
        server = f"location / {{ uwsgi_pass unix:{place}; }}"
        told = found(beside(server, app, asking), tmp_path)
        assert (("never-asks", 1) in told) == (place == other)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("error_page 404 = @app; return 404;", True),
        ("error_page 418 = @app; if ($arg_x) { return 418; } return 404;", True),
        ("error_page 403 = @app; return 404;", False),
        ("return 404;", False),
        ("error_page 404 /app; return 404;", False),
    ],
)
def test_a_refusal_that_leads_on(server: str, expected: bool, tmp_path: Path) -> None:
    """A server's `return` isn't run again in the named location to which its error_page leads."""
    lines = f"{server} location @app {{ proxy_pass http://127.0.0.1:9; }}"
    assert (("never-asks", 1) in found(beside(lines), tmp_path)) == expected


def test_each_server_is_told_by_itself(tmp_path: Path) -> None:
    """Of several that inherit one `root` one is exempted alone; a keeper is told with its file."""
    text = GOOD.replace(ASKING, SITE.replace("root /srv/www; ", ""))
    text = text.replace("http {", "http { root /srv/www; include a.conf; include b.conf;", 1)
    allow = "# mtls-sidecar: allow never-asks the files of a are public"
    (tmp_path / "a.conf").write_text(f"server {{\nlisten 80;\n{allow}\nlocation / {{ }}\n}}\n")
    (tmp_path / "b.conf").write_text("server {\nlisten 81;\nlocation / { }\n}\n")
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    told = examine(read_nginx(path), POLICY)
    assert [(e.id, Path(e.file).name, e.line, bool(e.accepted)) for e in told] == [
        ("never-asks", "a.conf", 4, True),
        ("never-asks", "b.conf", 3, False),
    ]
    assert all(f"the server of line 3 of {path} keeps" in each.what for each in told)


FPM = (
    "root /srv/a/public; fastcgi_pass unix:/run/php.sock; "
    "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;"
)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (FPM, True),
        (FPM.replace("/srv/a/public", "/srv/a"), True),
        (FPM.replace("/srv/a/public", "/srv/a/public/x"), True),
        (FPM.replace("/srv/a/public", "$site"), True),
        (FPM.replace("$document_root$fastcgi_script_name", "/srv/a/public/index.php"), True),
        (FPM.replace("SCRIPT_FILENAME", "DOCUMENT_ROOT"), True),
        (FPM.replace("/srv/a/public", "/srv/b"), False),
        (FPM.replace("$document_root$fastcgi_script_name", "/srv/b/index.php"), False),
        (FPM.replace("$document", "$realpath").replace("/srv/a", "/srv/b"), False),
    ],
)
def test_one_interpreter_of_two_sites(server: str, expected: bool, tmp_path: Path) -> None:
    """php-fpm runs the scripts of a site's own directory; another site's are no way in."""
    asking = f"location / {{ auth_request /authz/site; {FPM} }}"
    text = beside(f"location / {{ {server} }}", asking=asking)
    assert (("never-asks", 1) in found(text, tmp_path)) is expected


CAS = "ssl_client_certificate other.crt; ssl_verify_client optional;"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (f"listen 443 ssl; {CAS} return 404;", True),
        (f"listen *:443 ssl; {CAS} return 404;", True),
        (f"listen 0.0.0.0:443 ssl; {CAS} return 404;", True),
        (f"listen 443 ssl; {CAS.replace('other', 'ca')} return 404;", False),
        ("listen 443 ssl; return 404;", False),
        (f"listen 8443 ssl; {CAS} return 404;", False),
        (f"listen 443 ssl; {CAS} return 404; }} server {{ listen 443 ssl; {CAS} return 404;", True),
    ],
)
def test_sessions_of_another_server(server: str, expected: bool, tmp_path: Path) -> None:
    """Also of one that asks nobody: a session that it has verified by its CA resumes elsewhere."""
    text = GOOD.replace("http {", f"http {{ server {{ {server} }} ", 1)
    assert ("session-shared" in dict(found(text, tmp_path))) == expected

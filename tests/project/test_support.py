"""The tests' own bench holds: nginx runs and reloads, the PKI makes what it says."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from daemon import ROOT, Daemon, end_all
from forked import Forked, mtls_sidecar, start
from nginx import Nginx, NginxError, free_port
from pki import CA, Leaf, now
from tools import NginxBinary, need, openssl, promtool

TLS = """
http {{
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_client_certificate {ca};
        ssl_verify_client optional;
        ssl_verify_depth 3;
        location / {{ return 200 "$ssl_client_verify $ssl_client_escaped_cert"; }}
        location /serial {{ return 200 "$ssl_client_serial"; }}
    }}
}}
"""


def get(port: int, path: str, trust: CA, client: tuple[Path, Path]) -> bytes:
    context = ssl.create_default_context(cadata=trust.pem.decode())
    context.load_cert_chain(*client)
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_escaped_is_what_nginx_sends(kind: str, nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """`Leaf.escaped` is $ssl_client_escaped_cert to the byte, also under an intermediate."""
    root, port = CA("Root"), free_port()
    leaf = root.intermediate().issue(
        "alice", dns=["a.example"], key="rsa" if kind == "rsa" else "ec"
    )
    cert, key = root.server("localhost").write(tmp_path)
    conf = TLS.format(port=port, cert=cert, key=key, ca=root.write(tmp_path)[0])
    with Nginx(nginx_binary, conf, tmp_path / "nginx"):
        client = leaf.write(tmp_path)
        assert get(port, "/", root, client) == b"SUCCESS " + leaf.escaped
        assert int(get(port, "/serial", root, client), 16) == leaf.serial


def test_reload_is_over_when_it_returns(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """The new configuration answers at once; a refused one raises and the old one stays."""
    port = free_port()
    conf = f"http {{ server {{ listen 127.0.0.1:{port}; return 200 VERSION; }} }}"

    def body() -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read()
        finally:
            connection.close()

    with Nginx(nginx_binary, conf.replace("VERSION", "0"), tmp_path) as nginx:
        for version in "123":
            nginx.write(conf.replace("VERSION", version))
            nginx.reload()
            assert body() == version.encode()
        nginx.write("http { bogus; }")
        with pytest.raises(NginxError, match="bogus"):
            nginx.reload()
        assert body() == b"3"
        assert '"GET / HTTP/1.1" 200 1' in nginx.access_log
    assert not nginx.running


def test_a_start_that_fails_says_why(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """nginx's own words are in the error."""
    with pytest.raises(NginxError, match='unknown directive "bogus"'):
        Nginx(nginx_binary, "http { bogus; }", tmp_path).start()


def test_every_nginx_has_the_modules(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """auth_request, TLS, HTTP/2, and the stream module with ssl_preread."""
    conf = f"""
    http {{
        upstream sidecar {{ server unix:/nowhere; keepalive 4; }}
        server {{
            listen unix:{tmp_path}/s ssl http2;
            location / {{ auth_request /auth; }}
            location = /auth {{ internal; proxy_pass http://sidecar; }}
        }}
    }}
    stream {{
        map $ssl_preread_server_name $to {{ default 127.0.0.1:1; }}
        server {{ listen 127.0.0.1:{free_port()}; ssl_preread on; proxy_pass $to; }}
    }}
    """
    cert, key = CA().server().write(tmp_path)
    conf = conf.replace(
        "ssl http2;", f"ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};"
    )
    done = Nginx(nginx_binary, conf, tmp_path).test()
    assert done.returncode == 0, done.stderr


def read(leaf: Leaf, *arguments: str) -> str:
    """What OpenSSL, which is not the library that made it, prints of a certificate."""
    return need(openssl()).run("x509", "-noout", *arguments, input=leaf.pem.decode()).stdout


def test_a_certificate_has_what_was_asked() -> None:
    """Names, SANs, serial and validity, as OpenSSL reads them."""
    end = now() + timedelta(days=3)
    leaf = CA("Staff").issue(
        "alice",
        o="Example",
        ou=["SRE", "DB"],
        dns=["a.example"],
        uri=["spiffe://example.org/a"],
        email=["a@example.org"],
        ip=["2001:db8::1"],
        upn=["alice@corp"],
        serial=0x1B,
        not_after=end,
    )
    told = read(leaf, "-subject", "-issuer", "-serial", "-enddate", "-ext", "subjectAltName")
    for text in (
        "O = Example, OU = SRE, OU = DB, CN = alice",
        "issuer=CN = Staff",
        "serial=1B",
        f"{end:%H:%M:%S %Y}",
        "DNS:a.example",
        "URI:spiffe://example.org/a",
        "IP Address:2001:DB8:0:0:0:0:0:1",
    ):
        assert text in told


def test_what_no_builder_makes_is_made() -> None:
    """NUL and CR LF in names, two CNs, a repeated extension, a serial below zero; signed right."""
    ca = CA("Forge")
    for leaf in (
        ca.forge("alice\0.evil"),
        ca.forge("alice\r\nX: y"),
        ca.forge(cns=["alice", "bob"]),
        ca.forge(dns=["a\0.example"]),
        ca.forge(serial=-5),
        ca.forge(repeat_extensions=True),
    ):
        leaf.cert.verify_directly_issued_by(ca.cert)
    assert ca.forge(serial=-5).serial == -5
    assert len(ca.forge(cns=["a", "b"]).cert.subject) == 2
    with pytest.raises(x509.DuplicateExtension):
        ca.forge(repeat_extensions=True).cert.extensions.get_extension_for_oid(
            x509.ExtendedKeyUsage.oid
        )


def test_a_crl_has_what_was_asked() -> None:
    """Entries by certificate or number, delta and number, in DER or PEM, signed by whom it says."""
    ca, other = CA("Staff"), CA("Other")
    alice = ca.issue("alice")
    crl = x509.load_der_x509_crl(ca.crl([alice, 7], der=True, number=4, delta_base=3))
    assert {entry.serial_number for entry in crl} == {alice.serial, 7}
    assert crl.is_signature_valid(ca.cert.public_key())  # type: ignore[arg-type]
    assert crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number == 3
    stolen = x509.load_pem_x509_crl(ca.crl(key=other))
    assert stolen.issuer == ca.subject
    assert stolen.is_signature_valid(other.cert.public_key())  # type: ignore[arg-type]


def test_promtool_is_there() -> None:
    """It starts."""
    assert need(promtool()).run("--version").returncode == 0


@pytest.mark.parametrize(("argument", "code"), [("policy.yaml", 2), ("--help", 0)])
def test_a_forked_command_does_what_a_started_one_does(
    argument: str, code: int, tmp_path: Path
) -> None:
    """Its arguments, directory, environment, output and exit code are its own."""
    (tmp_path / "policy.yaml").write_text("version: 1\nlocations: [{name: a b}]\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "50"}
    command = [sys.executable, "-m", "sidecar", "check", argument]
    started = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    forked = mtls_sidecar("check", argument, cwd=tmp_path, env=env)
    assert started.returncode == forked.returncode == code
    assert (started.stdout, started.stderr) == (forked.stdout, forked.stderr)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LC_ALL", "PYTHONUTF8"])
def test_what_is_read_as_an_interpreter_begins_takes_a_new_one(name: str) -> None:
    """A variable that has no effect on what was forked is never given to it in silence."""
    with open(os.devnull, "wb") as nothing:
        out = nothing.fileno()
        plain = start("--version", stdout=out, stderr=out)
        special = start("--version", env={**os.environ, name: "0"}, stdout=out, stderr=out)
        assert isinstance(plain, Forked)
        assert not isinstance(special, Forked)
        assert plain.wait(60) == special.wait(60) == 0


def test_a_daemon_that_hangs_is_stopped_all_the_same(tmp_path: Path) -> None:
    """A test that fails while its daemon is held (SIGSTOP) leaves none behind."""
    policy = "version: 1\nlocations: [{name: site, allow: public}]\n"
    with Daemon(tmp_path, policy) as daemon:
        daemon.signal(signal.SIGSTOP)
    assert daemon.process is not None
    assert daemon.process.returncode == 0


def test_a_daemon_that_never_serves_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waited for in vain, it is gone, and so is at the end each one that was never stopped."""

    def never(*_: object) -> None:
        raise AssertionError("it never came")

    daemon = Daemon(tmp_path, "version: 1\nlocations: [{name: site, allow: public}]\n")
    with monkeypatch.context() as patched:
        patched.setattr(daemon, "until", never)
        with pytest.raises(AssertionError):
            daemon.start()
    assert daemon.process is not None
    assert daemon.process.returncode == -signal.SIGKILL
    left = daemon.start().process
    end_all()
    assert left is not None
    assert left.returncode == -signal.SIGKILL

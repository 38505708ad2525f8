"""The container's description, the compositions, the Kubernetes manifest and cloud-init's file."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_hosts import until
from https import Connection
from nginx import free_port
from pki import CA, Leaf
from podman import Podman, flags
from tools import BASE, cloud_init_schema, need, nginx_binaries, podman, release_tool

import sidecar
from sidecar.core.config.settings import read_settings
from sidecar.core.policy.spec import read_policy

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "deploy/container"
COMPOSITIONS = ["compose.yaml", "compose.swag.yaml"]
LINT = (
    "{extends: default, rules: {line-length: {max: 100}, document-start: disable,"
    " comments: {min-spaces-from-content: 1, require-starting-space: false},"
    " braces: {max-spaces-inside: 1}}}"
)


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def test_hadolint_has_nothing_to_say() -> None:
    """The Containerfile follows the known rules."""
    done = need(release_tool("hadolint")).run("--no-color", PLACE / "Containerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_special() -> None:
    """The last user is not root, by number; a health check asks /readyz; it is run once as it is
    built, so that a base that lacks a library is found."""
    text = (PLACE / "Containerfile").read_text()
    assert re.findall(r"(?m)^USER (.+)$", text)[-1] == "101:101"
    assert "/readyz" in text[text.index("HEALTHCHECK") :]
    assert "--require-hashes" in text
    assert '"sidecar", "check"' in text[text.index("USER 101:101") :]


NGINX = """\
FROM localhost/base
COPY nginx /usr/sbin/nginx
COPY nginx.conf /etc/nginx/nginx.conf
RUN echo root:x:0:0::/root:/bin/sh >/etc/passwd && echo nginx:x:101:101::/:/bin/sh >>/etc/passwd \\
    && echo nginx:x:101: >/etc/group && mkdir -p /srv/www && echo site >/srv/www/index.html
CMD ["nginx", "-p", "/etc/nginx/", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
"""
"""Stands for nginx's official image: the same user, and conf.d included."""

NGINX_CONF = """\
user nginx;
error_log stderr notice;
pid /tmp/nginx.pid;
events { }
http { include conf.d/*.conf; }
"""

SITE = """\
access_log off;
ssl_certificate pki/server.crt;
ssl_certificate_key pki/server.key;
ssl_client_certificate pki/ca.crt;
ssl_verify_client optional;
include snippets/mtls-sidecar.conf;
server {{
    listen 127.0.0.1:{port} ssl;
    include snippets/authz-location.conf;
    location / {{ auth_request /authz/site; root /srv/www; }}
}}
"""

POLICY = """\
version: 1
trust: {{staff: {{ca: ca.crt, denylist: [denylist.txt]}}}}
locations: [{{name: site, allow: [{{cn: [{names}]}}]}}]
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with the image `mtls-sidecar`, built of the Containerfile by the wheels of the lock
    files alone, on a base of Debian's own packages."""
    need(podman())
    place = tmp_path_factory.mktemp("podman")
    (place / "kept").mkdir()
    subprocess.run(["sh", ROOT / "deploy/wheels.sh", place / "wheels"], check=True)
    with Podman(place / "kept") as engine:
        engine.import_root(BASE, "localhost/base")
        options = ["--build-arg=BASE=localhost/base", "--build-arg=PIP_NO_INDEX=1"]
        options += ["--build-arg=PIP_FIND_LINKS=/wheels", f"--volume={place}/wheels:/wheels:ro"]
        engine.build(ROOT, PLACE / "Containerfile", "mtls-sidecar", *options)
        yield engine


def build_nginx(engine: Podman, place: Path) -> None:
    """The image that compositions name for nginx."""
    place.mkdir()
    binary = nginx_binaries()[0]
    shutil.copy(need(binary).path, place / "nginx")
    (place / "nginx.conf").write_text(NGINX_CONF)
    (place / "Containerfile").write_text(NGINX)
    engine.build(place, place / "Containerfile", "docker.io/library/nginx:stable")


def write_files(place: Path, port: int) -> tuple[CA, CA]:
    """What compose.yaml's heading says, beside it: the clients' CA, and the server's."""
    clients, servers = CA("Staff"), CA("Server")
    for name in ("policy", "nginx/pki"):
        (place / name).mkdir(parents=True)
    (place / "policy/ca.crt").write_bytes(clients.pem)
    (place / "policy/denylist.txt").write_text("")
    (place / "policy/policy.yaml").write_text(POLICY.format(names="alice"))
    shutil.copy(PLACE / "sidecar.yaml", place / "policy")
    (place / "nginx/pki/ca.crt").write_bytes(clients.pem)
    server = servers.server("app.example.com")
    (place / "nginx/pki/server.crt").write_bytes(server.pem)
    (place / "nginx/pki/server.key").write_bytes(server.key_pem)
    (place / "nginx/default.conf").write_text(SITE.format(port=port))
    shutil.copytree(ROOT / "nginx-example/snippets", place / "nginx/snippets")
    return clients, servers


def start(engine: Podman, name: str, service: dict[str, Any], place: Path) -> None:
    """Run a composition's service."""
    words = service.get("command", [])
    engine.run("run", "-d", f"--name={name}", *flags(service, place), service["image"], *words)


def healthy(engine: Podman, name: str) -> None:
    """Ask as the image's HEALTHCHECK does, until it succeeds."""
    until(lambda: engine.try_run("healthcheck", "run", name)[0] == 0, f"{name} is healthy")


def status(port: int, servers: CA, leaf: Leaf | None, place: Path) -> int:
    """What nginx answers to this certificate, on a connection of its own."""
    context = ssl.create_default_context(cadata=servers.pem.decode())
    if leaf:
        context.load_cert_chain(*leaf.write(place / "clients" / leaf.sha256))
    plain = socket.create_connection(("127.0.0.1", port), timeout=15)
    host = "app.example.com"
    with Connection(context.wrap_socket(plain, server_hostname=host), host) as connection:
        return connection.get("/").status


def test_the_image_says_how_it_is_run(engine: Podman) -> None:
    """Its user, health check, volumes, port, signal and command have come from the Containerfile;
    it is built of two stages: neither pip nor the sources' directory is in it."""
    (image,) = json.loads(engine.run("image", "inspect", "mtls-sidecar"))
    config = image["Config"]
    assert config["User"] == "101:101"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/opt/mtls-sidecar/bin/python", "-I", "-m", "sidecar"]
    assert config["Volumes"].keys() == {"/run/mtls-sidecar", "/var/lib/mtls-sidecar"}
    assert "/readyz" in image["Healthcheck"]["Test"][-1]
    told = engine.run("run", "--rm", "--network=none", "mtls-sidecar", "--version")
    assert told == f"mtls-sidecar {sidecar.__version__}\n"
    looks = "ls -d /src /opt/mtls-sidecar/bin/pip* /opt/mtls-sidecar/lib/*/site-packages/pip 2>&1"
    sh = ["run", "--rm", "--network=none", "--entrypoint=/bin/sh", "mtls-sidecar", "-c"]
    status, found = engine.try_run(*sh, looks)
    assert (status != 0, "\n/" in f"\n{found}") == (True, False), found
    # Of what a volume is mounted on, that volume gets its owner (Docker; podman asks the user).
    owned = engine.run(*sh, "stat -c %u:%g:%a /run/mtls-sidecar* /var/lib/mtls-sidecar")
    assert owned.split() == 3 * ["101:101:750"]


def test_the_composition_serves(engine: Podman, tmp_path: Path) -> None:
    """compose.yaml as it is, with nginx before it: healthy; nginx's user is let in where the policy
    says so and nowhere else, an edit and a revocation are in force by themselves; nothing but the
    volumes can be written, and another user may not open the socket; it ends by its signal."""
    build_nginx(engine, tmp_path / "image")
    port = free_port()
    clients, servers = write_files(tmp_path, port)
    services = documents(PLACE / "compose.yaml")[0]["services"]
    start(engine, "sidecar", services["sidecar"], tmp_path)
    healthy(engine, "sidecar")
    start(engine, "nginx", services["nginx"], tmp_path)
    alice, bob = clients.issue("alice"), clients.issue("bob")

    def asked(leaf: Leaf | None) -> int:
        return status(port, servers, leaf, tmp_path)

    until(lambda: "start worker process" in engine.run("logs", "nginx"), "nginx has started")
    assert [asked(alice), asked(bob), asked(None)] == [200, 403, 401]
    (tmp_path / "policy/policy.yaml").write_text(POLICY.format(names="alice, bob"))
    (tmp_path / "policy/denylist.txt").write_text(f"sha256 {alice.sha256}\n")
    until(lambda: (asked(alice), asked(bob)) == (403, 200), "the edit is in force")
    for path in ("/etc/mtls-sidecar/x", "/opt/mtls-sidecar/x", "/x"):
        said = engine.try_run("exec", "--user=0", "sidecar", "touch", path)
        assert (said[0], "Read-only file system" in said[1]) == (1, True)
    ask = "import socket; socket.socket(socket.AF_UNIX).connect('/run/mtls-sidecar/authz.sock')"
    python = ["/opt/mtls-sidecar/bin/python", "-I", "-c", ask]
    assert engine.try_run("exec", "sidecar", *python)[0] == 0
    assert "PermissionError" in engine.try_run("exec", "--user=102:102", "sidecar", *python)[1]
    engine.run("stop", "nginx", "sidecar")
    ended = engine.run("inspect", "--format={{.State.ExitCode}}", "sidecar")
    assert ended.strip() == "0", engine.run("logs", "sidecar")


def test_the_fetcher_of_the_composition_serves_the_sidecar(engine: Podman, tmp_path: Path) -> None:
    """Its profile `fetch`: its socket is on the volume that both have, and the daemon connects."""
    write_files(tmp_path, 0)
    services = documents(PLACE / "compose.yaml")[0]["services"]
    for name in ("fetch", "sidecar"):
        start(engine, f"{name}-2", services[name], tmp_path)
    healthy(engine, "sidecar-2")
    connect = (
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/mtls-sidecar-fetch/fetch.sock')"
    )
    python = ["/opt/mtls-sidecar/bin/python", "-I", "-c", connect]
    assert engine.try_run("exec", "sidecar-2", *python) == (0, ""), engine.run("logs", "fetch-2")
    engine.run("stop", "fetch-2", "sidecar-2")


def test_the_sidecar_beside_swag_serves(engine: Podman, tmp_path: Path) -> None:
    """As another user, on directories of the machine that belong to it: healthy, and the socket is
    that user's."""
    write_files(tmp_path, 0)
    place = tmp_path / "swag/mtls-sidecar"
    for name in ("run", "state"):
        (place / name).mkdir(parents=True)
        os.chown(place / name, 1000, 1000)
    shutil.move(tmp_path / "policy", place / "policy")
    service = documents(PLACE / "compose.swag.yaml")[0]["services"]["sidecar"]
    start(engine, "swag", service | {"user": "1000:1000"}, tmp_path)
    healthy(engine, "swag")
    socket = (place / "run/authz.sock").stat()
    assert (socket.st_uid, socket.st_gid, socket.st_mode & 0o777) == (1000, 1000, 0o660)
    engine.run("stop", "swag")


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_sidecar_is_shut_in_every_composition(name: str) -> None:
    """Read-only, no capability, no network; nginx shares its socket's volume, and waits for it."""
    (found,) = documents(PLACE / name)
    services = found["services"]
    sidecar = services["sidecar"]
    assert sidecar["read_only"] is True
    assert sidecar["cap_drop"] == ["ALL"]
    assert sidecar["network_mode"] == "none"
    assert sidecar["security_opt"] == ["no-new-privileges:true"]
    (nginx,) = (each for each in services.values() if "ports" in each)
    assert nginx["depends_on"] == {"sidecar": {"condition": "service_healthy"}}
    shared = set(sidecar["volumes"]) & set(nginx["volumes"])
    assert [each.split(":")[1] for each in shared] == ["/run/mtls-sidecar"]
    assert (ROOT / "deploy/container" / sidecar["build"]["context"]).resolve() == ROOT
    assert (ROOT / sidecar["build"]["dockerfile"]).exists()


@pytest.mark.parametrize(
    "path", [*sorted(PLACE.glob("*.yaml")), ROOT / "deploy/cloud-init.yaml"], ids=lambda p: p.name
)
def test_yamllint_has_nothing_to_say(path: Path) -> None:
    """No key twice, no accident of indentation."""
    done = need(release_tool("yamllint")).run("--strict", "-d", LINT, path)
    assert (done.returncode, done.stdout) == (0, "")


def fits(path: Path, *schema: str | Path) -> subprocess.CompletedProcess[str]:
    """What a JSON schema says of a file; its keys are read strictly where the schema is strict."""
    return need(release_tool("check-jsonschema")).run(*schema, path)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_composition_is_compose(name: str, tmp_path: Path) -> None:
    """It fits the schema of the Compose specification, which takes no unknown key."""
    done = fits(PLACE / name, "--builtin-schema=vendor.compose-spec")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / name
    wrong.write_text((PLACE / name).read_text().replace("read_only:", "readonly:"))
    assert "'readonly' was unexpected" in fits(wrong, "--builtin-schema=vendor.compose-spec").stdout


def test_cloud_init_takes_its_file() -> None:
    """It fits the schema of Debian's cloud-init."""
    schema = need(cloud_init_schema()).path
    done = fits(ROOT / "deploy/cloud-init.yaml", "--schemafile", schema)
    assert done.returncode == 0, done.stdout


def test_the_manifest_is_kubernetes() -> None:
    """Every document fits the schema, strictly: no unknown key."""
    done = need(release_tool("kubernetes-validate")).run("--strict", PLACE / "kubernetes.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pod_holds_together() -> None:
    """The two share the socket's volume and user; probes ask what the sidecar serves; what the
    ConfigMap has is a policy and settings that it takes, and `listen` is on the shared volume."""
    config, deployment, service, _ = documents(PLACE / "kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    sidecar, nginx = pod["containers"]
    for each in (sidecar, nginx):
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {m["name"] for m in each["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}
        assert {"name": "socket", "mountPath": "/run/mtls-sidecar"} in each["volumeMounts"]
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert sidecar["readinessProbe"]["httpGet"]["path"] == "/readyz"
    settings = read_settings(config["data"]["sidecar.yaml"].encode(), "sidecar.yaml")
    assert settings.listen is not None
    assert str(settings.listen) == "unix:/run/mtls-sidecar/authz.sock"
    read_policy(config["data"]["policy.yaml"].encode(), "policy.yaml")
    names = {port["name"] for port in nginx["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_cloud_init_writes_a_policy_and_checks_the_package() -> None:
    """Its policy is one; the checksum comes before the installation, `check` before the start."""
    (found,) = documents(ROOT / "deploy/cloud-init.yaml")
    files = {each["path"]: each["content"] for each in found["write_files"]}
    read_policy(files["/etc/mtls-sidecar/policy.yaml"].encode(), "policy.yaml")
    (script,) = (text for text in files.values() if text.startswith("#!/bin/sh"))
    steps = [
        "sha256sum -c",
        "apt-get install",
        "mtls-sidecar check",
        "systemctl enable",
        "nginx -t",
    ]
    places = [script.index(step) for step in steps]
    assert places == sorted(places)
    # where any user may make files, the package could be exchanged after its check
    assert not [each for each in (*files, script) if "/tmp/" in each]

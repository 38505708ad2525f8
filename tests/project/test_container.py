"""The container's description, the compositions, the Kubernetes manifest and cloud-init's file."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from containerfile import run, steps
from tools import need, release_tool

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


SERVES = """
mount -o remount,ro final
ip link set lo up 2>/dev/null || true
for volume in {volumes}; do
    mkdir -p keep$volume
    chown --reference=final$volume keep$volume
    mount --bind keep$volume final$volume
done
chroot --userspec={user} final {command} >log 2>&1 &
tries=600
until chroot --userspec={user} final {healthcheck} >/dev/null 2>&1; do
    tries=$((tries - 1)); [ $tries -gt 0 ] || {{ cat log >&2; exit 1; }}
    sleep 0.1
done
echo "healthy"
for place in /opt/mtls-sidecar /etc/mtls-sidecar; do
    if chroot final touch $place/x 2>/dev/null; then echo "root writes to $place"; fi
done
for who in 101:101 102:102; do
    echo "$who $(chroot --userspec=$who final /usr/bin/python3 -I -c {ask})"
done
kill $!
wait $! && echo "ended 0" || echo "ended $?"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a root of its own")
def test_the_image_is_built_and_runs(tmp_path: Path) -> None:
    """The Containerfile's instructions, on this machine's root: they build; the daemon runs as 101
    with a read-only root and no network but its loopback; the health check succeeds; nginx's user
    101 is answered, another may not open the socket; it ends by the stop signal, cleanly."""
    script, image = steps((PLACE / "Containerfile").read_text())
    ask = (ROOT / "tests/systemd/booted/ask.py").read_text()
    ask += "\nprint(ask('/run/mtls-sidecar/authz.sock', 'none'))"
    ask = ask.replace('if __name__ == "__main__":', "if False:")
    serves = SERVES.format(
        volumes=" ".join(image.volumes),
        user=image.user,
        command=shlex.join([*image.entrypoint, *image.command]),
        healthcheck=shlex.join(image.healthcheck),
        ask=shlex.quote(ask),
    )
    inside = shlex.join(["unshare", "--net", "sh", "-euc", serves])
    told = run(tmp_path, f"{script}\n{inside}").splitlines()
    assert told[-4:] == ["healthy", "101:101 403", "102:102 PermissionError", "ended 0"]


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

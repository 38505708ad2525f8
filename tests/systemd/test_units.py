"""The units under a real, booted systemd.

A container is booted from this very machine's files, under an overlay that is thrown away
(systemd-nspawn, `--volatile=overlay`); in it install.sh runs as on any host, and a script uses the
units as an administrator would.  What it saw comes back as lines `name=value`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from daemon import ROOT
from tools import need, systemd_nspawn

PROBE = r"""
exec 2>/out/stderr
set -x
cd /
saw() { printf '%s=%s\n' "$1" "$2" >>/out/saw; }
state() { systemctl is-active "$1" 2>/dev/null || true; }
ask() { # as USER, of SOCKET: the status line's code, or the error
    runuser -u "$1" -- /usr/bin/python3 -c '
import socket, sys
try:
    s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])
    s.sendall(b"GET /authz/" + sys.argv[2].encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    print(s.recv(4096).split()[1].decode())
except OSError as error:
    print(type(error).__name__)
' "$2" "${3:-open}"
}

sh /src/deploy/install.sh >/out/install 2>&1
saw installed $?
cat >/etc/mtls-sidecar/policy.yaml <<'EOF'
version: 1
locations:
  - {name: open, allow: public}
EOF
systemctl start mtls-sidecar
saw started "$(state mtls-sidecar)"
saw status "$(systemctl show -P StatusText mtls-sidecar)"
saw socket "$(stat -c %a:%U:%G /run/mtls-sidecar/authz.sock)"
saw nginx "$(ask www-data /run/mtls-sidecar/authz.sock)"
saw stranger "$(ask games /run/mtls-sidecar/authz.sock)"

echo '  - {name: two, allow: public}' >>/etc/mtls-sidecar/policy.yaml
saw reload "$(systemctl reload mtls-sidecar && echo done)"
for _ in $(seq 50); do
    [ "$(ask www-data /run/mtls-sidecar/authz.sock two)" = 204 ] && break
    sleep 0.1
done
saw reloaded "$(ask www-data /run/mtls-sidecar/authz.sock two)"

mkdir -p /run/systemd/system/mtls-sidecar.service.d
printf '[Service]\nWatchdogSec=1s\n' >/run/systemd/system/mtls-sidecar.service.d/w.conf
systemctl daemon-reload
systemctl restart mtls-sidecar
kill -STOP "$(systemctl show -P MainPID mtls-sidecar)"
for _ in $(seq 100); do
    [ "$(systemctl show -P NRestarts mtls-sidecar)" != 0 ] && break
    sleep 0.1
done
for _ in $(seq 100); do [ "$(state mtls-sidecar)" = active ] && break; sleep 0.1; done
saw restarts "$(systemctl show -P NRestarts mtls-sidecar)"
saw after_watchdog "$(ask www-data /run/mtls-sidecar/authz.sock)"

systemctl stop mtls-sidecar
saw stopped "$(state mtls-sidecar)"
saw result "$(systemctl show -P Result mtls-sidecar)"
saw socket_gone "$(test -e /run/mtls-sidecar/authz.sock || echo yes)"

systemctl start mtls-sidecar.socket
saw activated "$(ask www-data /run/mtls-sidecar/authz.sock)"
saw by_socket "$(state mtls-sidecar)"
saw socket_stranger "$(ask games /run/mtls-sidecar/authz.sock)"
systemctl stop mtls-sidecar.socket mtls-sidecar

systemctl start mtls-sidecar@1 mtls-sidecar@2
saw instances "$(state mtls-sidecar@1) $(state mtls-sidecar@2)"
saw instance "$(ask www-data /run/mtls-sidecar/authz-2.sock)"
systemctl start mtls-sidecar-fetch
saw fetcher "$(state mtls-sidecar-fetch)"
fetcher=$(systemctl show -P MainPID mtls-sidecar-fetch)
saw fetcher_user "$(stat -c %U:%G /proc/$fetcher)"
saw fetcher_runs "$(stat -c %a:%U:%G /run/mtls-sidecar-fetch)"
saw fetcher_writes "$(stat -c %a:%U:%G /var/lib/mtls-sidecar/crl)"
saw fetcher_socket "$(stat -c %a:%U:%G /run/mtls-sidecar-fetch/fetch.sock)"
as_fetcher() {
    nsenter -t "$fetcher" -m runuser -u mtls-sidecar-fetch -g mtls-sidecar -- "$@" 2>&1
}
saw fetcher_brings "$(as_fetcher touch /var/lib/mtls-sidecar/crl/x && echo yes)"
saw fetcher_touches "$(as_fetcher sh -c 'for p in /var/lib/mtls-sidecar /run/mtls-sidecar \
    /etc/mtls-sidecar /opt/mtls-sidecar /var/log/mtls-sidecar; do touch $p/x 2>/dev/null && echo $p
    done; kill -0 '"$(systemctl show -P MainPID mtls-sidecar@1)"' 2>/dev/null && echo daemon')"
saw daemon_reads "$(runuser -u mtls-sidecar -- ls /var/lib/mtls-sidecar/crl)"
systemctl restart mtls-sidecar@1
saw crl_still "$(stat -c %U /var/lib/mtls-sidecar/crl)"
systemctl stop mtls-sidecar-fetch
saw sockets_stay "$(ask www-data /run/mtls-sidecar/authz-1.sock)"

journalctl -u 'mtls-sidecar*' --no-pager >/out/journal 2>&1
metrics() { /usr/bin/python3 -c 'import urllib.request as u
print(u.urlopen("http://127.0.0.1:9641/metrics").read().decode())'; }
echo 'decision_log_file: /var/log/mtls-sidecar/decisions.log' >>/etc/mtls-sidecar/sidecar.yaml
systemctl start mtls-sidecar
ask www-data /run/mtls-sidecar/authz.sock
sleep 0.5
saw logged "$(grep -c public /var/log/mtls-sidecar/decisions.log)"
saw scheduled "$(awk '{print $41}' /proc/$(systemctl show -P MainPID mtls-sidecar)/stat)"
saw process_metrics "$(metrics | grep -c ^process_resident_memory_bytes)"
sh /src/deploy/install.sh --uninstall >/dev/null 2>&1
saw uninstalled "$(test -e /opt/mtls-sidecar || echo yes) $(state mtls-sidecar@1)"
saw finished yes
"""


@pytest.fixture(scope="module")
def saw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the script in the container saw."""
    nspawn = need(systemd_nspawn())
    place = tmp_path_factory.mktemp("boot")
    for name in ("root", "out"):
        (place / name).mkdir()
    pip = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in pip.items())
    (place / "probe.sh").write_text(exports + PROBE)
    (place / "probe.service").write_text(
        "[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\n"
        "ExecStart=/bin/sh /probe.sh\nExecStopPost=/bin/systemctl poweroff --no-block\n"
    )
    # The machine's root, seen once more: a container may not be booted from `/` itself.  In a
    # mount namespace of its own, so that it is gone with the process.
    command = [
        *(str(nspawn.path), "-D", str(place / "root"), "--volatile=overlay", "--boot"),
        *("--register=no", "--keep-unit", "--console=pipe", "--machine=mtls-sidecar-test"),
        f"--bind={place / 'out'}:/out",
        f"--bind-ro={place / 'probe.sh'}:/probe.sh",
        f"--bind-ro={place / 'probe.service'}:/etc/systemd/system/probe.service",
        f"--bind-ro={ROOT}:/src",
        "systemd.unit=probe.service",
    ]
    mount = f"mount --bind / {shlex.quote(str(place / 'root'))}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(command)}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=nspawn.env,
    )
    return read(place / "out", done.stdout + done.stderr)


def read(out: Path, console: str) -> dict[str, str]:
    lines = (out / "saw").read_text().splitlines() if (out / "saw").exists() else []
    found = dict(line.split("=", 1) for line in lines)
    for name in ("install", "stderr", "journal"):
        if (out / name).exists():
            console += f"\n== {name}\n{(out / name).read_text()[-6000:]}"
    assert found.get("finished") == "yes", console
    found["console"] = console
    return found


def check(saw: dict[str, str], **expected: str) -> None:
    got = {name: saw.get(name) for name in expected}
    assert got == expected, saw["console"]


def test_it_starts_and_tells_so(saw: dict[str, str]) -> None:
    """Installed by install.sh, the unit starts, is ready, and names the policy in force."""
    check(saw, installed="0", started="active")
    assert saw["status"].startswith("policy ")


def test_nginx_may_ask_and_others_may_not(saw: dict[str, str]) -> None:
    """The socket is nginx's group's: www-data gets an answer, another user no connection."""
    check(saw, socket="660:mtls-sidecar:www-data", nginx="204", stranger="PermissionError")


def test_reload_reads_the_policy(saw: dict[str, str]) -> None:
    """systemctl reload succeeds, and the new location is there."""
    check(saw, reload="done", reloaded="204")


def test_the_watchdog_restarts_a_hung_daemon(saw: dict[str, str]) -> None:
    """A stopped process is noticed, killed and started anew."""
    check(saw, restarts="1", after_watchdog="204")


def test_stopping_is_clean(saw: dict[str, str]) -> None:
    """It ends successfully and takes its socket away."""
    check(saw, stopped="inactive", result="success", socket_gone="yes")


def test_socket_activation(saw: dict[str, str]) -> None:
    """The first question starts the service; the socket keeps its group."""
    check(saw, activated="204", by_socket="active", socket_stranger="PermissionError")


def test_instances_and_fetcher(saw: dict[str, str]) -> None:
    """Two instances run beside each other, and the fetcher's end takes no socket away."""
    check(saw, instances="active active", instance="204", fetcher="active", sockets_stay="204")


def test_the_fetcher_can_not_touch_the_daemon(saw: dict[str, str]) -> None:
    """Its own user: it writes what it brings, which the daemon reads, and nothing else."""
    check(
        saw,
        fetcher_user="mtls-sidecar-fetch:mtls-sidecar",
        fetcher_runs="750:mtls-sidecar-fetch:mtls-sidecar",
        fetcher_writes="750:mtls-sidecar-fetch:mtls-sidecar",
        fetcher_socket="660:mtls-sidecar-fetch:mtls-sidecar",
        fetcher_brings="yes",
        fetcher_touches="",
        daemon_reads="x",
        crl_still="mtls-sidecar-fetch",
    )


def test_uninstalling(saw: dict[str, str]) -> None:
    """install.sh --uninstall stops the units, instances too, and removes the program."""
    check(saw, uninstalled="yes inactive")


def test_log_directory_and_process_metrics(saw: dict[str, str]) -> None:
    """A log file in /var/log/mtls-sidecar is written; the process's own metrics are there."""
    check(saw, logged="1", process_metrics="1")


def test_the_unit_s_scheduling_policy(saw: dict[str, str]) -> None:
    """The daemon runs under SCHED_BATCH (3, sched(7)), which its RestrictRealtime lets be."""
    check(saw, scheduled="3")

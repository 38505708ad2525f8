"""The units under a real, booted systemd.

A container is booted twice from this very machine's files, under an overlay that is thrown away
at the end (systemd-nspawn); in it install.sh runs as on any host, and `booted/probe.sh` uses the
units as an administrator would.  What it saw comes back as lines `name=value`.
"""

from __future__ import annotations

import re

import pytest
from container import BOOTED, boot, read_saw
from tools import need, systemd_nspawn


@pytest.fixture(scope="module")
def saw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the script in the container saw."""
    nspawn = need(systemd_nspawn())
    place = tmp_path_factory.mktemp("boot")
    console = boot(nspawn, place, "probe.sh", times=2, binds=[f"{BOOTED / 'ask.py'}:/ask.py"])
    return read_saw(
        place / "out", console, ("install", "enroll", "upgrade", "uninstall", "stderr", "journal")
    )


def check(saw: dict[str, str], **expected: str) -> None:
    got = {name: saw.get(name) for name in expected}
    assert got == expected, saw["console"]


def lost(saw: dict[str, str], name: str) -> int:
    """How many questions of the load failed."""
    found = re.fullmatch(r"asked=(\d+) failed=(\d+) longest=(\d+)", saw.get(name, ""))
    assert found, saw["console"]
    print(name, saw[name])
    # While it is killed again and again, one question may wait for all of that time.
    assert int(found[1]) > (0 if name == "lost_by_kills" else 20)
    return int(found[2])


def test_it_starts_and_tells_so(saw: dict[str, str]) -> None:
    """Installed by install.sh, the unit starts, is ready, and names the policy in force."""
    check(saw, installed="0", started="active", ready="ok")
    assert saw["status"].startswith("policy ")


def test_nginx_may_ask_and_others_may_not(saw: dict[str, str]) -> None:
    """The socket is nginx's group's: www-data gets an answer, another user no connection."""
    check(saw, socket="660:root:www-data", nginx="204", stranger="PermissionError")
    check(saw, directory="755:root:root")


def test_a_reboot_leaves_the_socket_to_nginx(saw: dict[str, str]) -> None:
    """Booted anew with the units enabled, nginx's group is let in before and after the service has
    started, and nobody else is."""
    check(saw, rebooted="204", rebooted_again="204", rebooted_stranger="PermissionError")
    check(saw, rebooted_socket="660:root:www-data", rebooted_directory="755:root:root")
    check(saw, rebooted_ready="ok")


def test_whoever_takes_the_address_of_the_metrics_stops_no_decision(saw: dict[str, str]) -> None:
    """A user without rights listens on 127.0.0.1:9641 first: the daemon starts, decides, and tells
    it; the metrics are there after a restart without him."""
    check(saw, squatted_starts="active", squatted="204", squatted_told="1", squatted_after="ok")


def test_the_status_page_can_be_kept_from_local_users(saw: dict[str, str]) -> None:
    """After what docs/metrics.md has typed, its group may open the page's socket, and nobody
    else; nothing listens on the port."""
    check(saw, hidden_from_news="open", hidden_from_games="PermissionError", hidden_port="closed")
    check(saw, shown_again="ok")


def test_reload_reads_the_policy(saw: dict[str, str]) -> None:
    """systemctl reload succeeds, and the new location is there."""
    check(saw, reload="done", reloaded="204")


def test_a_reload_with_a_mistake_fails_and_the_old_policy_serves(saw: dict[str, str]) -> None:
    """systemctl reload says that the policy was refused, and succeeds once it is mended."""
    check(saw, bad_reload="refused", bad_reload_serves="204", good_reload="done")


def test_the_services_see_whose_a_directory_is(saw: dict[str, str]) -> None:
    """A policy of one user in a directory of another is refused, and both are told apart by the
    daemon, its instances and the enrolment service."""
    check(saw, owner_told="yes", owner_mended="done", instance_users="all", enroll_users="all")


@pytest.mark.parametrize("name", ["lost_by_restarts", "lost_by_kills", "lost_by_upgrade"])
def test_nothing_is_lost(saw: dict[str, str], name: str) -> None:
    """20 restarts, an upgrade under load: every question is answered.  Of those under way when the
    process is killed (three times), at most these are lost."""
    assert lost(saw, name) <= (3 if name == "lost_by_kills" else 0), saw["console"]


def test_the_watchdog_restarts_a_hung_daemon(saw: dict[str, str]) -> None:
    """A stopped process is noticed, killed and started anew."""
    check(saw, restarts="1", after_watchdog="204")


def test_a_broken_policy_is_tried_until_it_is_mended(saw: dict[str, str]) -> None:
    """Without a last good policy the daemon does not start; once the file is mended it does, by
    itself, also after more tries than systemd's start limit."""
    assert saw["broken"] != "active", saw["console"]
    check(saw, healed="204")


def test_a_broken_policy_holds_nginx_up_neither_at_boot_nor_at_a_question(
    saw: dict[str, str],
) -> None:
    """While the daemon waits for a policy nginx starts, and its questions are refused at once."""
    check(saw, broken_nginx="active", broken_answer="403")


def test_the_daemon_has_no_network(saw: dict[str, str]) -> None:
    """Its network namespace has its own loopback and nothing else."""
    check(saw, networks="1")


def test_stopping_is_clean(saw: dict[str, str]) -> None:
    """It ends successfully, and the socket goes with its unit."""
    check(saw, stopped="inactive", result="success", socket_gone="yes")


def test_socket_activation(saw: dict[str, str]) -> None:
    """The first question starts the service; the socket keeps its group."""
    check(saw, activated="204", by_socket="active", socket_stranger="PermissionError")


def test_instances_and_fetcher(saw: dict[str, str]) -> None:
    """Two instances run beside each other, and the fetcher's end takes no socket away."""
    check(saw, instances="active active", instance="204", fetcher="active", sockets_stay="204")
    check(saw, instance_admin="660:root:mtls-sidecar")


def test_the_fetcher_can_not_touch_the_daemon(saw: dict[str, str]) -> None:
    """Its own user: it writes what it brings, which the daemon reads, and nothing else; it reads
    no decision log.  It tells the users on its socket apart."""
    check(
        saw,
        fetcher_users="all",
        fetcher_user="mtls-sidecar-fetch:mtls-sidecar",
        fetcher_runs="750:mtls-sidecar-fetch:mtls-sidecar",
        fetcher_writes="750:mtls-sidecar-fetch:mtls-sidecar",
        fetcher_socket="660:mtls-sidecar-fetch:mtls-sidecar",
        fetcher_brings="yes",
        fetcher_touches="",
        fetcher_reads="0",
        daemon_reads="x",
        crl_still="mtls-sidecar-fetch",
    )


def test_a_fetcher_taken_over_keeps_no_command_waiting(saw: dict[str, str]) -> None:
    """It ignores SIGTERM, and asks systemd for more time: it starts, and is killed at a stop."""
    check(saw, hostile_started="0", hostile_stopped="0 failed")


def test_enrolment_is_a_process_of_its_own(saw: dict[str, str]) -> None:
    """Its user and socket, no network; nginx gets the page of an invitation and others none.  The
    authorizer's user reads no CA key, and the authorizer answers as before."""
    check(saw, enroll_made="yes", enroll="active", enroll_page="200")
    check(saw, enroll_stranger="PermissionError", enroll_networks="1")
    check(saw, enroll_user="mtls-sidecar-enroll:mtls-sidecar", enroll_key="0 ")
    check(saw, enroll_crl="done", enroll_authorizer="204")


def test_a_local_user_who_fills_tmp_keeps_no_service_from_starting(saw: dict[str, str]) -> None:
    """systemd would make a PrivateDevices= in /tmp; without it no device can be opened either, but
    for null, random and their like."""
    check(saw, no_room="yes", starts_without_room="active active active 0")
    check(saw, answers_without_room="204", shared_memory="0 0 0 closed")


def test_the_policy_is_for_the_services_alone(saw: dict[str, str]) -> None:
    """Not every local user reads who may go where; no installer stays in production."""
    check(saw, private="640:root:mtls-sidecar", installer_gone="0")


def test_an_upgrade_restarts_the_instances_too(saw: dict[str, str]) -> None:
    """An instance that runs is another process after it."""
    check(saw, instance_anew="active")


def test_an_upgrade_follows_no_link(saw: dict[str, str]) -> None:
    """A link that the service's user left in its state directory is refused, and gives nothing
    away; what a link in /etc/mtls-sidecar leads to keeps its group."""
    assert saw["upgraded"].startswith("upgraded to mtls-sidecar "), saw["console"]
    check(saw, link_refused="yes", victim="root:root", beside_link="root:root")


def test_uninstalling(saw: dict[str, str]) -> None:
    """install.sh --uninstall stops the units, says what nginx will answer, and leaves the
    configuration, the CA of the invitations, and nothing else."""
    check(saw, uninstalled="yes inactive", uninstall_warns="1", left_users="")
    check(saw, left_owners="root:root root:root root:root ")  # the numbers are soon another's
    assert set(saw["left"].split()) <= {
        "/etc/mtls-sidecar",
        "/etc/nginx/snippets/mtls-sidecar.conf",
        "/var/lib/mtls-sidecar-enroll",
    }, saw["left"]


def test_log_directory_and_process_metrics(saw: dict[str, str]) -> None:
    """A log file in /var/log/mtls-sidecar is written; the process's own metrics are there."""
    check(saw, logged="1", process_metrics="1", started_at="1")


def test_the_unit_s_scheduling_policy(saw: dict[str, str]) -> None:
    """The daemon runs under SCHED_BATCH (3, sched(7)), which its RestrictRealtime lets be."""
    check(saw, scheduled="3")


def test_a_crl_that_takes_all_memory_takes_no_daemon(saw: dict[str, str]) -> None:
    """systemd doesn't stop the service where the kernel has killed a process that read a CRL."""
    check(saw, out_of_memory="continue")

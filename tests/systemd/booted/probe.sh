#!/bin/sh
# Runs as root in a container that has booted systemd; what it sees goes to /out/saw, a line each.
# The source tree is /src.  The first boot installs and uses the units; the second one finds them
# enabled, upgrades and uninstalls.
set -eu
set +e # each line's outcome is what is looked at
exec 2>>/out/stderr
set -x
cd /
socket=/run/mtls-sidecar/authz.sock

saw() { printf '%s=%s\n' "$1" "$2" >>/out/saw; }
state() { systemctl is-active "$1" 2>/dev/null || true; }
ask() { # USER [SOCKET [LOCATION]]
    runuser -u "$1" -- /usr/bin/python3 -I /ask.py "${2:-$socket}" "${3:-open}"
}
web() {
    /usr/bin/python3 -I -c 'import sys, urllib.request as u
print(u.urlopen("http://127.0.0.1:9641" + sys.argv[1]).read().decode())' "$1"
}
under_load() { # NAME COMMAND...: what is lost of a steady load meanwhile
    touch /asking
    runuser -u www-data -- /usr/bin/python3 -I /ask.py $socket open /asking >/out/load &
    name=$1
    shift
    "$@"
    rm /asking
    wait $!
    saw "$name" "$(cat /out/load)"
}

installs() {
    sh /src/deploy/install.sh --with enroll >/out/install 2>&1
    saw installed $?
    saw private "$(stat -c %a:%U:%G /etc/mtls-sidecar/policy.yaml)"
    saw installer_gone "$(ls /opt/mtls-sidecar/bin | grep -c pip)"
    cat >/etc/mtls-sidecar/policy.yaml <<'EOF'
version: 1
locations:
  - {name: open, allow: public}
EOF
    systemctl enable --now mtls-sidecar
    saw started "$(state mtls-sidecar)"
    saw status "$(systemctl show -P StatusText mtls-sidecar)"
    saw socket "$(stat -c %a:%U:%G $socket)"
    saw directory "$(stat -c %a:%U:%G /run/mtls-sidecar)"
    saw nginx "$(ask www-data)"
    saw stranger "$(ask games)"
    saw ready "$(web /readyz)"
}

reloads() {
    echo '  - {name: two, allow: public}' >>/etc/mtls-sidecar/policy.yaml
    saw reload "$(systemctl reload mtls-sidecar && echo done)"
    for _ in $(seq 50); do
        [ "$(ask www-data $socket two)" = 204 ] && break
        sleep 0.1
    done
    saw reloaded "$(ask www-data $socket two)"
    cp -p /etc/mtls-sidecar/policy.yaml /good.yaml
    echo 'unknown: 1' >>/etc/mtls-sidecar/policy.yaml
    saw bad_reload "$(systemctl reload mtls-sidecar || echo refused)"
    saw bad_reload_serves "$(ask www-data $socket two)"
    cat /good.yaml >/etc/mtls-sidecar/policy.yaml
    saw good_reload "$(systemctl reload mtls-sidecar && echo done)"
}

# A policy of one user in a directory of another, who could replace it.
tells_owners_apart() {
    install -d -o news /news
    install -o games -g mtls-sidecar -m 0640 /good.yaml /news/policy.yaml
    mv /etc/mtls-sidecar/policy.yaml /etc/mtls-sidecar/kept.yaml
    ln -s /news/policy.yaml /etc/mtls-sidecar/policy.yaml
    for _ in $(seq 100); do
        told=$(journalctl -u mtls-sidecar --no-pager -o cat | grep -c "/news belongs to user $(id -u news),")
        [ "$told" != 0 ] && break
        sleep 0.1
    done
    saw owner_told "$([ "$told" != 0 ] && echo yes)"
    mv /etc/mtls-sidecar/kept.yaml /etc/mtls-sidecar/policy.yaml
    saw owner_mended "$(systemctl reload mtls-sidecar && echo done)"
}

all_users() { # PID: whether it sees each user as what it is
    cmp /proc/1/uid_map "/proc/$1/uid_map" && echo all
}

restarts() {
    for _ in $(seq 20); do
        systemctl restart mtls-sidecar
        sleep 0.2
    done
}

kills() {
    for _ in $(seq 3); do
        systemctl kill -s KILL mtls-sidecar
        sleep 2
    done
}

hangs() {
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
    saw after_watchdog "$(ask www-data)"
    rm /run/systemd/system/mtls-sidecar.service.d/w.conf
    systemctl daemon-reload
}

is_shut() {
    pid=$(systemctl show -P MainPID mtls-sidecar)
    saw out_of_memory "$(systemctl show -P OOMPolicy mtls-sidecar)"
    saw scheduled "$(awk '{print $41}' "/proc/$pid/stat")"
    saw networks "$(nsenter -t "$pid" -n cat /proc/net/dev | grep -c :)"
    saw process_metrics "$(web /metrics | grep -c ^process_resident_memory_bytes)"
    saw started_at "$(web /metrics | awk -v now="$(date +%s)" \
        '/^process_start_time_seconds/ {print (now - $2 >= -2 && now - $2 < 300)}')"
}

stops() {
    systemctl stop mtls-sidecar.socket mtls-sidecar
    saw stopped "$(state mtls-sidecar)"
    saw result "$(systemctl show -P Result mtls-sidecar)"
    saw socket_gone "$(test -e $socket || echo yes)"
    systemctl start mtls-sidecar.socket
    saw activated "$(ask www-data)"
    saw by_socket "$(state mtls-sidecar)"
    saw socket_stranger "$(ask games)"
    systemctl stop mtls-sidecar
}

# What docs/metrics.md has typed, to keep local users from the status page.
hides_the_page() {
    page=/src/docs/metrics.md
    place=/etc/systemd/system/mtls-sidecar-admin.socket.d
    mkdir -p $place
    sed -n '/^\[Socket\]$/,/^```$/{ /```/d; s/=prometheus$/=news/; p }' $page >$place/override.conf
    systemctl daemon-reload # as `systemctl edit` does
    sed -n '/^sudo systemctl stop mtls-sidecar-admin/,/^```$/{ s/^sudo //p }' $page | sh
    for user in news games; do
        saw hidden_from_$user "$(runuser -u $user -- /usr/bin/python3 -I -c 'import socket
peer = socket.socket(socket.AF_UNIX)
try: print("open" if peer.connect("/run/mtls-sidecar/admin.sock") is None else "")
except OSError as error: print(type(error).__name__)')"
    done
    saw hidden_port "$(web /livez || echo closed)"
    rm -r $place
    systemctl daemon-reload
    systemctl stop mtls-sidecar-admin.socket
    systemctl restart mtls-sidecar
    saw shown_again "$(web /livez)"
}

# Somebody who has no rights here takes the address of the metrics first.
is_squatted() {
    systemctl stop mtls-sidecar.socket mtls-sidecar-admin.socket mtls-sidecar
    runuser -u games -- /usr/bin/python3 -I -c 'import socket, time
taken = socket.create_server(("127.0.0.1", 9641))
open("/tmp/taken", "w")
time.sleep(60)' &
    squatter=$!
    for _ in $(seq 100); do [ -e /tmp/taken ] && break; sleep 0.1; done
    saw squatted_starts "$(systemctl start mtls-sidecar && state mtls-sidecar)"
    saw squatted "$(ask www-data)"
    for _ in $(seq 100); do
        told=$(journalctl -u mtls-sidecar --no-pager -o cat -n 20 |
            grep -c 'no metrics and no /readyz.*has not handed the socket over')
        [ "$told" != 0 ] && break
        sleep 0.1
    done
    saw squatted_told "$told"
    runuser -u games -- pkill -u games
    wait $squatter
    systemctl restart mtls-sidecar
    for _ in $(seq 50); do web /readyz >/dev/null && break; sleep 0.1; done
    saw squatted_after "$(web /readyz)"
    systemctl stop mtls-sidecar
}

has_instances() {
    systemctl start mtls-sidecar@1 mtls-sidecar@2
    saw instances "$(state mtls-sidecar@1) $(state mtls-sidecar@2)"
    saw instance_users "$(all_users "$(systemctl show -P MainPID mtls-sidecar@2)")"
    saw instance "$(ask www-data /run/mtls-sidecar/authz-2.sock)"
    saw instance_admin "$(stat -c %a:%U:%G /run/mtls-sidecar/admin-2.sock)"
}

has_fetcher() {
    systemctl start mtls-sidecar-fetch
    for _ in $(seq 100); do [ -S /run/mtls-sidecar-fetch/fetch.sock ] && break; sleep 0.1; done
    saw fetcher "$(state mtls-sidecar-fetch)"
    fetcher=$(systemctl show -P MainPID mtls-sidecar-fetch)
    saw fetcher_user "$(stat -c %U:%G "/proc/$fetcher")"
    saw fetcher_runs "$(stat -c %a:%U:%G /run/mtls-sidecar-fetch)"
    saw fetcher_writes "$(stat -c %a:%U:%G /var/lib/mtls-sidecar/crl)"
    saw fetcher_users "$(all_users "$fetcher")"
    saw fetcher_socket "$(stat -c %a:%U:%G /run/mtls-sidecar-fetch/fetch.sock)"
    saw fetcher_brings "$(as_fetcher touch /var/lib/mtls-sidecar/crl/x && echo yes)"
    saw fetcher_touches "$(as_fetcher sh -c 'for p in /var/lib/mtls-sidecar /run/mtls-sidecar \
        /etc/mtls-sidecar /opt/mtls-sidecar /var/log/mtls-sidecar
        do touch $p/x 2>/dev/null && echo $p; done
        kill -0 '"$(systemctl show -P MainPID mtls-sidecar@1)"' 2>/dev/null && echo daemon')"
    saw daemon_reads "$(runuser -u mtls-sidecar -- ls /var/lib/mtls-sidecar/crl | grep x)"
    systemctl restart mtls-sidecar@1
    saw crl_still "$(stat -c %U /var/lib/mtls-sidecar/crl)"
    systemctl stop mtls-sidecar-fetch
    saw sockets_stay "$(ask www-data /run/mtls-sidecar/authz-1.sock)"
    systemctl stop mtls-sidecar@1 mtls-sidecar@2
    systemctl stop mtls-sidecar@1.socket mtls-sidecar@2.socket \
        mtls-sidecar-admin@1.socket mtls-sidecar-admin@2.socket
}

# Taken over, it ignores SIGTERM and asks for more time, again and again.
fetcher_stays() {
    mkdir -p /run/systemd/system/mtls-sidecar-fetch.service.d
    cat >/run/systemd/system/mtls-sidecar-fetch.service.d/hostile.conf <<'EOF'
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -I /run/hostile.py
EOF
    cat >/run/hostile.py <<'EOF'
import signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("/var/lib/mtls-sidecar/crl/hostile", "w").close()
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect("/run/systemd/notify")
while True:
    manager.send(b"EXTEND_TIMEOUT_USEC=60000000")
    time.sleep(1)
EOF
    systemctl daemon-reload
    timeout 60 systemctl start mtls-sidecar-fetch
    saw hostile_started $?
    for _ in $(seq 100); do [ -e /var/lib/mtls-sidecar/crl/hostile ] && break; sleep 0.1; done
    timeout 60 systemctl stop mtls-sidecar-fetch
    saw hostile_stopped "$? $(state mtls-sidecar-fetch)"
    systemctl kill -s KILL mtls-sidecar-fetch
    rm -r /run/systemd/system/mtls-sidecar-fetch.service.d /run/hostile.py
    systemctl daemon-reload
    systemctl reset-failed mtls-sidecar-fetch
}

as_fetcher() {
    nsenter -t "$fetcher" -m runuser -u mtls-sidecar-fetch -g mtls-sidecar -- "$@" 2>&1
}

logs() {
    echo 'decision_log_file: /var/log/mtls-sidecar/decisions.log' >>/etc/mtls-sidecar/sidecar.yaml
    systemctl start mtls-sidecar
    ask www-data
    sleep 0.5
    saw logged "$(grep -c public /var/log/mtls-sidecar/decisions.log)"
    saw fetcher_reads "$(runuser -u mtls-sidecar-fetch -- cat \
        /var/log/mtls-sidecar/decisions.log 2>/dev/null | wc -l)"
}

page() { # USER PATH
    runuser -u "$1" -- /usr/bin/python3 -I -c 'import socket, sys
peer = socket.socket(socket.AF_UNIX)
try:
    peer.connect("/run/mtls-sidecar-enroll/enroll.sock")
    peer.sendall(f"GET {sys.argv[1]} HTTP/1.1\r\nHost: a\r\nX-Real-IP: 192.0.2.7\r\n\r\n".encode())
    print(peer.recv(4096).split()[1].decode())
except OSError as error:
    print(type(error).__name__)' "$2"
}

enrolls() {
    mtls=/opt/mtls-sidecar/bin/mtls-sidecar
    saw enroll_made "$($mtls enroll init >/out/enroll 2>&1 && echo yes)"
    systemctl enable --now mtls-sidecar-enroll >>/out/enroll 2>&1
    saw enroll "$(state mtls-sidecar-enroll)"
    url=$($mtls invite alice | head -n 1)
    path=/${url#https://*/}
    saw enroll_page "$(page www-data "$path")"
    saw enroll_stranger "$(page games "$path")"
    pid=$(systemctl show -P MainPID mtls-sidecar-enroll)
    saw enroll_user "$(stat -c %U:%G "/proc/$pid")"
    saw enroll_users "$(all_users "$pid")"
    saw enroll_networks "$(nsenter -t "$pid" -n cat /proc/net/dev | grep -c :)"
    saw enroll_key "$(runuser -u mtls-sidecar -- cat /var/lib/mtls-sidecar-enroll/ca/ca.key \
        2>/dev/null | wc -c) $(find /var/lib/mtls-sidecar-enroll ! -user mtls-sidecar-enroll)"
    saw enroll_crl "$(systemctl start mtls-sidecar-enroll-crl && echo done)"
    saw enroll_authorizer "$(ask www-data)"
    systemctl stop mtls-sidecar-enroll mtls-sidecar-enroll.socket
}

# A broken policy at start is tried again until it is mended, however long that takes.
heals() {
    systemctl stop mtls-sidecar
    find /var/lib/mtls-sidecar -mindepth 1 -not -path '*/crl*' -delete # no last good one
    echo 'unknown: 1' >>/etc/mtls-sidecar/policy.yaml
    # what a distribution's nginx.service says of itself
    cat >/run/systemd/system/nginx.service <<'EOF'
[Unit]
After=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
EOF
    systemctl daemon-reload
    systemctl start --no-block mtls-sidecar nginx
    sleep 9 # more tries than systemd's default of five
    saw broken "$(state mtls-sidecar)"
    saw broken_nginx "$(state nginx)"
    saw broken_answer "$(ask www-data)"
    rm /run/systemd/system/nginx.service
    systemctl daemon-reload
    cat /good.yaml >/etc/mtls-sidecar/policy.yaml
    for _ in $(seq 100); do
        [ "$(ask www-data)" = 204 ] && break
        sleep 0.1
    done
    saw healed "$(ask www-data)"
}

starts_without_room() { # in /tmp, whose inodes any user can use up
    services='mtls-sidecar mtls-sidecar-fetch mtls-sidecar-enroll'
    mount -t tmpfs -o nr_inodes=2,mode=1777 tmpfs /tmp
    runuser -u games -- touch /tmp/last
    saw no_room "$(touch /tmp/more 2>/dev/null || echo yes)"
    systemctl restart $services
    systemctl start mtls-sidecar-enroll-crl
    saw starts_without_room "$(for each in $services; do state $each; done | tr '\n' ' ')$?"
    saw answers_without_room "$(ask www-data)"
    saw shared_memory "$(for each in $services; do
        inside=/proc/$(systemctl show -P MainPID $each)/root
        stat -c %a "$inside/dev/shm"
    done | tr '\n' ' ')$(systemctl show -P DevicePolicy $services | sort -u | xargs)"
    systemctl stop mtls-sidecar-fetch mtls-sidecar-enroll mtls-sidecar-enroll.socket
    umount /tmp
}

if [ ! -e /out/saw ]; then # nothing has been seen yet: the first boot
    installs
    reloads
    tells_owners_apart
    under_load lost_by_restarts restarts
    under_load lost_by_kills kills
    hangs
    hides_the_page
    is_shut
    stops
    is_squatted
    has_instances
    has_fetcher
    fetcher_stays
    logs
    enrolls
    starts_without_room
    heals
    journalctl -u 'mtls-sidecar*' --no-pager >/out/journal 2>&1
    exit
fi

saw rebooted "$(ask www-data)"
saw rebooted_again "$(ask www-data)"
saw rebooted_stranger "$(ask games)"
saw rebooted_socket "$(stat -c %a:%U:%G $socket)"
saw rebooted_directory "$(stat -c %a:%U:%G /run/mtls-sidecar)"
saw rebooted_ready "$(web /readyz)"
upgrade() { sh /src/deploy/install.sh >/out/upgrade 2>&1; }
systemctl start mtls-sidecar@1
before=$(systemctl show -P MainPID mtls-sidecar@1)
under_load lost_by_upgrade upgrade
saw instance_anew "$([ "$before" != "$(systemctl show -P MainPID mtls-sidecar@1)" ] &&
    state mtls-sidecar@1)"
saw upgraded "$(tail -n 1 /out/upgrade)"
mv /var/lib/mtls-sidecar/crl /var/lib/mtls-sidecar/kept
mkdir /victim
ln -s /victim /var/lib/mtls-sidecar/crl
saw link_refused "$(sh /src/deploy/install.sh >/dev/null 2>&1 || echo yes)"
saw victim "$(stat -c %U:%G /victim)"
rm /var/lib/mtls-sidecar/crl
install -o mtls-sidecar-enroll -m 0400 /dev/null /etc/mtls-sidecar/key
mkdir /other
mv /etc/mtls-sidecar/policy.yaml /other/
ln -s /other/policy.yaml /etc/mtls-sidecar/policy.yaml
chgrp root /other/policy.yaml
saw beside_link "$(sh /src/deploy/install.sh >/dev/null 2>&1; stat -c %U:%G /other/policy.yaml)"
sh /src/deploy/install.sh --uninstall >/out/uninstall 2>&1
saw uninstalled "$(test -e /opt/mtls-sidecar || echo yes) $(state mtls-sidecar@1)"
saw uninstall_warns "$(grep -c 'nginx answers 500' /out/uninstall)"
saw left "$(find /etc /opt /usr/local /var /run -xdev -name '*mtls-sidecar*' 2>/dev/null |
    sort | tr '\n' ' ')"
saw left_owners "$(stat -c %U:%G /etc/mtls-sidecar /etc/mtls-sidecar/sidecar.yaml \
    /etc/mtls-sidecar/key | tr '\n' ' ')"
saw left_users "$(getent passwd mtls-sidecar mtls-sidecar-fetch mtls-sidecar-enroll
    getent group mtls-sidecar)"
journalctl -u 'mtls-sidecar*' --no-pager -b >>/out/journal 2>&1
saw finished yes

#!/bin/sh
# Runs as root in a container that has booted systemd: every fault under a steady load through nginx.
# FULL=1 is the long form.  Results go to /out/saw, `fault=NAME …` each; the tree is /src.
set -eu
set +eu # each line's outcome is what is looked at
exec 2>>/out/stderr
set -x
cd /
booted=/src/tests/systemd/booted
n() { if [ "$FULL" = 1 ]; then echo "$1"; else echo "$2"; fi; } # how often: in full, or short

saw() { printf '%s=%s\n' "$1" "$2" >>/out/saw; }
web() {
    /usr/bin/python3 -I -c 'import sys, urllib.request as u
try: print(u.urlopen("http://127.0.0.1:9641" + sys.argv[1]).read().decode())
except u.HTTPError as e: print(e.code, e.read().decode())' "$1"
}
journal() { # of the process that runs now
    journalctl -q --no-pager -o cat -u mtls-sidecar \
        "_SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID mtls-sidecar)"
}
until_true() { # SECONDS COMMAND…
    tries=$(($1 * 10))
    shift
    while [ $tries -gt 0 ]; do
        "$@" >/dev/null 2>&1 && return 0
        tries=$((tries - 1))
        sleep 0.1
    done
    return 1
}
is_ready() { web /readyz | grep -q ^ok; }
is_shut() { web /readyz | grep -q 'no CRL is in force'; }
is_answering() {
    /usr/bin/python3 -I $booted/ask.py /run/mtls-sidecar/authz.sock site | grep -q 401
}

fault() { # NAME COMMAND…: what becomes of the load meanwhile
    touch /asking
    /usr/bin/python3 -I $booted/load.py 300 /asking "$WITHOUT" >/out/load &
    name=$1
    shift
    sleep 0.5
    "$@"
    sleep 0.5
    rm /asking
    wait $!
    printf 'fault=%s %s\n' "$name" "$(cat /out/load)" >>/out/saw
}

# -- setting up

starts_responder() {
    systemctl reset-failed responder
    systemd-run -q --unit=responder openssl ocsp -port 8888 -index /pki/index.txt -CA /pki/ca.crt \
        -rsigner /pki/ca.crt -rkey /pki/ca.key -nmin 300
}

sets_up() {
    mkdir -p /etc/nginx # as on a machine with nginx
    sh /src/deploy/install.sh >/out/install 2>&1
    mkdir -p /etc/nginx/snippets
    cp /src/nginx-example/snippets/*.conf /etc/nginx/snippets/
    saw installed $?
    cp /pki/ca.crt /pki/ca.crl /etc/mtls-sidecar/
    cat >/etc/mtls-sidecar/policy.yaml <<'END'
version: 1
trust:
  staff: {ca: ca.crt, crl: [ca.crl], denylist: [denylist.txt]}
  asked: {ca: ca.crt, ocsp: "http://127.0.0.1:8888"}
locations:
  - {name: site, trust: staff, allow: verified}
  - {name: admin, trust: staff, allow: [{cn: admin}]}
  - {name: ocsp, trust: asked, allow: verified}
END
    : >/etc/mtls-sidecar/denylist.txt
    echo 'decision_log_file: /var/log/mtls-sidecar/decisions.log' >>/etc/mtls-sidecar/sidecar.yaml
    chgrp -R mtls-sidecar /etc/mtls-sidecar
    chmod 0640 /etc/mtls-sidecar/*.*
    mkdir -p /www/admin /www/ocsp /var/log/nginx /var/lib/nginx/body
    for d in /www /www/admin /www/ocsp; do echo hello >$d/index.html; done
    starts_responder
    systemctl start mtls-sidecar mtls-sidecar-fetch
    cp $booted/nginx.conf /etc/nginx/nginx.conf # the snippets are beside it
    systemd-run -q --unit=nginx -E LD_LIBRARY_PATH="$NGINX_LIBRARIES" \
        "$NGINX" -c /etc/nginx/nginx.conf -g 'daemon off;'
    until_true 20 is_ready
    until_true 10 test -s /run/nginx.pid || exit
    for _ in 1 2 3; do fault warm-up sleep 1; done
    sed -i '/^fault=warm-up/d' /out/saw
}

# -- what is done on purpose: nothing may fail

nothing() { sleep 2; }

restarts() {
    for _ in $(seq "$(n 20 5)"); do
        systemctl restart mtls-sidecar
        sleep 0.1
    done
}

nginx_reloads() {
    for _ in $(seq "$(n 20 5)"); do
        kill -HUP "$(cat /run/nginx.pid)"
        sleep 0.4
    done
}

rotations() {
    for i in $(seq "$(n 10 3)"); do
        mv /var/log/mtls-sidecar/decisions.log /var/log/mtls-sidecar/decisions.log.$i
        systemctl reload mtls-sidecar
    done
}

policy_edits() {
    for i in $(seq "$(n 50 5)"); do
        echo "# $i" >>/etc/mtls-sidecar/policy.yaml
        systemctl reload mtls-sidecar
    done
}

bad_reloads() {
    cp -p /etc/mtls-sidecar/policy.yaml /good.yaml
    echo 'unknown: 1' >>/etc/mtls-sidecar/policy.yaml
    saw bad_reload "$(systemctl reload mtls-sidecar || echo refused)"
    systemctl restart mtls-sidecar
    until_true 10 is_answering
    cp -p /good.yaml /etc/mtls-sidecar/policy.yaml
    systemctl reload mtls-sidecar
}

missing_files() {
    for file in ca.crt ca.crl denylist.txt; do
        mv /etc/mtls-sidecar/$file /away
        systemctl restart mtls-sidecar
        until_true 10 is_answering
        cp -p /away /etc/mtls-sidecar/$file
    done
    until_true 10 is_ready
}

upgrade() { sh /src/deploy/install.sh >/out/upgrade 2>&1; }

fetcher_and_responder() {
    systemctl kill -s STOP mtls-sidecar-fetch
    sleep "$(n 5 1)"
    systemctl kill -s KILL mtls-sidecar-fetch
    systemctl kill -s STOP responder
    sleep "$(n 5 1)"
    systemctl kill -s CONT responder
    systemctl stop responder
    sleep "$(n 5 1)"
    starts_responder
}

journal_hung() {
    systemctl kill -s STOP systemd-journald
    cp -p /etc/mtls-sidecar/policy.yaml /good.yaml
    for i in 1 2 3; do # it has a lot to say meanwhile
        seq 1000 | sed 's/$/'$i': 1/; s/^/unknown_/' >>/etc/mtls-sidecar/policy.yaml
        kill -HUP "$(systemctl show -P MainPID mtls-sidecar)"
        sleep 1
    done
    cp -p /good.yaml /etc/mtls-sidecar/policy.yaml
    systemctl kill -s CONT systemd-journald
    systemctl restart systemd-journald
}

full_disk() {
    mount -t tmpfs -o size=256k,mode=0755 tmpfs /small
    chown mtls-sidecar /small
    ln -sf /small/decisions.log /var/log/mtls-sidecar/small.log
    sed -i 's|decisions.log|small.log|' /etc/mtls-sidecar/sidecar.yaml
    mkdir -p /run/systemd/system/mtls-sidecar.service.d
    printf '[Service]\nReadWritePaths=/small\n' >/run/systemd/system/mtls-sidecar.service.d/s.conf
    systemctl daemon-reload
    systemctl restart mtls-sidecar
    until_true 20 sh -c 'journalctl -q -o cat -u mtls-sidecar | grep -q "^ERROR decision log: lines are lost"'
    saw disk_page "$(web /readyz | grep -c 'decision log: lines are lost: No space left')"
    : >/small/decisions.log
    mount -o remount,size=64m /small
    until_true 20 sh -c 'journalctl -q -o cat -u mtls-sidecar | grep -q "^WARNING decision log: over"'
    saw disk_said "$(journal | grep -c '^ERROR decision log')"
    saw disk_over "$(journal | grep -c '^WARNING decision log: over')"
    sed -i 's|small.log|decisions.log|' /etc/mtls-sidecar/sidecar.yaml
    rm /run/systemd/system/mtls-sidecar.service.d/s.conf
    systemctl daemon-reload
    systemctl restart mtls-sidecar
}

flooded() {
    saw flood_asked "$(/usr/bin/python3 -I $booted/load.py flood "$(n 15 4)")"
}

# A day forwards and back, as the daemon sees it.
clock_jumps() {
    for moment in +1d -1d +1d +0; do
        echo "$moment" >/clock/now
        sleep "$(n 3 1)"
    done
}

# -- what ends processes: what is under way may fail

kills() {
    for _ in $(seq "$(n 10 3)"); do
        systemctl kill -s KILL mtls-sidecar
        until_true 20 is_answering
    done
}

# -- what denies: nobody may be let in wrongly, and all is well again at once

ended_crl() {
    cat /pki/ended.crl >/etc/mtls-sidecar/ca.crl
    until_true 10 is_shut
    saw ended_ready "$(web /readyz | grep -q 'no CRL is in force' && echo yes)"
    sleep 1
    saw ended_said "$(journal | grep -c '^ERROR trust staff: no CRL.* denied at site, admin')"
    cat /pki/newer.crl >/etc/mtls-sidecar/ca.crl
    until_true 10 is_ready
}

far_clock() {
    for moment in +3650d -3650d +0; do
        echo "$moment" >/clock/now
        sleep "$(n 3 1)"
    done
}

with_clock() { # COMMAND…: the daemon under a clock that the file says
    mkdir -p /clock /run/systemd/system/mtls-sidecar.service.d
    echo +0 >/clock/now
    printf '[Service]\nEnvironment=LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/clock/now\n' "$FAKETIME" \
        >/run/systemd/system/mtls-sidecar.service.d/c.conf
    printf 'Environment=FAKETIME_NO_CACHE=1 FAKETIME_DISABLE_SHM=1 DONT_FAKE_MONOTONIC=1\nWatchdogSec=0\n' \
        >>/run/systemd/system/mtls-sidecar.service.d/c.conf
    systemctl daemon-reload
    systemctl restart mtls-sidecar
    "$@"
    rm /run/systemd/system/mtls-sidecar.service.d/c.conf
    systemctl daemon-reload
    systemctl restart mtls-sidecar
}

jumps() {
    # An OCSP answer is not a day old, nor made tomorrow: carol would be denied.
    WITHOUT=carol fault 'clock: a day forwards and back' clock_jumps
    fault 'denies: clock ten years off' far_clock
    fault 'after the clock was off' nothing
}

# -- two instances

instances() {
    for _ in $(seq "$(n 10 3)"); do
        systemctl restart mtls-sidecar@1
        systemctl restart mtls-sidecar@2
    done
}

has_instances() {
    systemctl stop mtls-sidecar mtls-sidecar.socket mtls-sidecar-admin.socket
    systemctl start mtls-sidecar@1 mtls-sidecar@2
    sed -i 's|server unix:.*authz.sock;|server unix:/run/mtls-sidecar/authz-1.sock max_fails=0; server unix:/run/mtls-sidecar/authz-2.sock max_fails=0;|' \
        /etc/nginx/snippets/mtls-sidecar.conf
    kill -HUP "$(cat /run/nginx.pid)"
    sleep 2
    fault 'two instances, restarted in turn' instances
}

mkdir -p /small
sets_up
fault 'no fault' nothing
fault 'restarts' restarts
fault 'nginx reloads' nginx_reloads
fault 'log rotations' rotations
fault 'policy edits' policy_edits
fault 'reload and restart with a bad policy' bad_reloads
fault 'restarts without CA, CRL, denylist' missing_files
fault 'journal hung and restarted' journal_hung
fault 'full disk for the log' full_disk
fault 'flood of strangers' flooded
fault 'fetcher and responder hung and dead' fetcher_and_responder
[ "$FULL" != 1 ] || fault 'upgrade' upgrade
fault 'killed: kill -9' kills
[ -z "$FAKETIME" ] || with_clock jumps
fault 'denies: a CRL that has ended' ended_crl
fault 'after the CRL was replaced' nothing
has_instances
saw log_lines "$(cat /var/log/mtls-sidecar/decisions.log* | wc -l)"
saw log_strangers "$(cat /var/log/mtls-sidecar/decisions.log* | grep 'reason="no_certificate"' |
    grep -vc summarized)"
saw log_summaries "$(cat /var/log/mtls-sidecar/decisions.log* | grep -c summarized)"
journalctl --no-pager >/out/journal 2>&1
saw finished yes

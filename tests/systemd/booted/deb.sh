#!/bin/sh
# Runs in the container that test_deb.py boots, without a network: installs, upgrades, removes and
# purges the package as an administrator would, and writes what it saw to /out/saw.
set -eu
set +e # each line's outcome is what is looked at
exec 2>>/out/stderr
set -x
cd /
socket=/run/mtls-sidecar/authz.sock
export DEBIAN_FRONTEND=noninteractive

saw() { printf '%s=%s\n' "$1" "$2" >>/out/saw; }
state() { systemctl is-active "$1" 2>/dev/null || true; }
ask() { runuser -u "$1" -- /usr/bin/python3 -I /ask.py $socket open; }
owned() { stat -c %a:%U:%G "$1"; }
install() { dpkg --force-confdef --force-confold -i "$1" >>/out/console 2>&1; }

mkdir -p /opt/mtls-sidecar/bin
touch /opt/mtls-sidecar/bin/mtls-sidecar
saw refused_beside_install_sh "$(install /debs/old.deb || echo yes)"
rm -r /opt/mtls-sidecar
dpkg -P mtls-sidecar >>/out/console 2>&1

install /debs/old.deb
saw installed $?
saw not_started "$(state mtls-sidecar) $(state mtls-sidecar.socket)"
saw policy "$(owned /etc/mtls-sidecar/policy.yaml)"
saw directory "$(owned /etc/mtls-sidecar)"
saw brings "$(owned /var/lib/mtls-sidecar) $(owned /var/lib/mtls-sidecar/crl)"
saw fetcher "$(id -gn mtls-sidecar-fetch)"
saw checked "$(runuser -u mtls-sidecar -- mtls-sidecar check >/dev/null && echo ok)"
saw compiled "$(find /usr/lib/mtls-sidecar -path '*-packages/sidecar/*' -name 'cli.cpython-*.pyc' | wc -l)"
printf 'version: 1\nlocations:\n  - {name: open, allow: public}\n' >/etc/mtls-sidecar/policy.yaml
systemctl enable --now mtls-sidecar mtls-sidecar@1
saw started "$(state mtls-sidecar) $(state mtls-sidecar@1)"
saw nginx "$(ask www-data)"
saw stranger "$(ask games)"

runuser -u mtls-sidecar -- mv /var/lib/mtls-sidecar/crl /var/lib/mtls-sidecar/kept
mkdir /victim
runuser -u mtls-sidecar -- ln -s /victim /var/lib/mtls-sidecar/crl
mkdir /other
touch /other/private.yaml
ln -s /other/private.yaml /etc/mtls-sidecar/fleet.yaml
before=$(systemctl show -P MainPID mtls-sidecar)
touch /asking
runuser -u www-data -- /usr/bin/python3 -I /ask.py $socket open /asking >/out/load &
mount --bind /bin/false /usr/bin/py3compile # as on a full disk
install /debs/new.deb
saw upgraded $?
umount /usr/bin/py3compile
saw not_compiled "$(grep -c 'not compiled' /out/console)"
rm /asking
wait $!
saw lost_by_upgrade "$(cat /out/load)"
saw restarted "$([ "$before" != "$(systemctl show -P MainPID mtls-sidecar)" ] && echo yes)"
saw version "$(dpkg-query -W -f '${Version}' mtls-sidecar)"
saw kept "$(grep -c public /etc/mtls-sidecar/policy.yaml)"
saw beside "$(grep -c 'of the new version' /etc/mtls-sidecar/policy.yaml.dpkg-dist)"
saw replaced "$(grep -c 'of the new version' /etc/nginx/snippets/identity.conf)"
saw settings "$(owned /etc/mtls-sidecar/sidecar.yaml) $(owned /etc/mtls-sidecar/policy.yaml)"
saw victim "$(stat -c %U:%G /victim)"
saw other "$(stat -c %U:%G /other/private.yaml)"
saw link_told "$(grep -c 'crl is no directory' /out/console)"

dpkg -r mtls-sidecar >/out/removal 2>&1
saw removed $?
cat /out/removal >>/out/console
saw removal_warns "$(grep -c 'nginx answers 500' /out/removal)"
saw stopped "$(pgrep -u mtls-sidecar | wc -l) $(state mtls-sidecar.socket)"
saw removed_left "$(find /usr /lib /run /etc/systemd -xdev -name '*mtls-sidecar*' | tr '\n' ' ')"
saw config_stays "$(grep -c public /etc/mtls-sidecar/policy.yaml)"
saw state_stays "$(owned /var/lib/mtls-sidecar)"

touch /etc/mtls-sidecar/denylist.txt
chown mtls-sidecar-fleet:mtls-sidecar /etc/mtls-sidecar/denylist.txt
dpkg -P mtls-sidecar >>/out/console 2>&1
saw purged $?
saw left_owners "$(stat -c %U:%G /etc/mtls-sidecar /etc/mtls-sidecar/denylist.txt | tr '\n' ' ')"
rm -r /etc/mtls-sidecar
saw purged_left "$(find /etc /opt /usr /var /run -xdev -name '*mtls-sidecar*' 2>/dev/null |
    tr '\n' ' ')"
saw snippets "$(ls /etc/nginx/snippets 2>/dev/null | wc -l)"
saw users "$(getent passwd mtls-sidecar mtls-sidecar-fetch; getent group mtls-sidecar)"
saw finished yes

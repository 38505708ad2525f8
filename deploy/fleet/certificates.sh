#!/bin/sh
# Makes the certificates with which a fleet's machines show each other who they are: of an authority
# of their own, which must have nothing to do with that of nginx's clients.
#
#   sh deploy/fleet/certificates.sh DIR NAME...
#
# A NAME with a dot is a NATS server's host name; any other one is a node, `keeper` or `publisher`,
# as nats.conf knows them.  The fleet is `prod`, unless FLEET says otherwise.  DIR/NAME is what
# goes to that machine.  Called again it adds names, and leaves what is there alone.
set -eu
umask 077

dir=${1:?give a directory, then names: sh certificates.sh DIR nats1.example.com web1}
shift
[ $# -gt 0 ] || { echo 'certificates.sh: give names: nats1.example.com web1 keeper publisher' >&2; exit 2; }
fleet=${FLEET:-prod}
days=${DAYS:-825}
for name in "$fleet" "$@"; do
    case $name in
        *[!A-Za-z0-9._-]* | '' | .* | -* | *..*)
            echo "certificates.sh: $name is no name: use A-Z a-z 0-9 . _ -" >&2
            exit 2 ;;
    esac
done

ca=$dir/authority
if [ ! -e "$ca/fleet-ca.crt" ]; then
    mkdir -p "$ca"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/O=fleet $fleet/CN=fleet $fleet authority" \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' \
        -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -keyout "$ca/ca.key" -out "$ca/fleet-ca.crt" 2>/dev/null
fi

for name in "$@"; do
    place=$dir/$name
    # A server opens the routes to the others as their client.
    case $name in
        *.*) file=server usages=serverAuth,clientAuth more="subjectAltName=DNS:$name" ;;
        *) file=nats usages=clientAuth more= ;;
    esac
    if [ -e "$place/$file.crt" ]; then continue; fi
    mkdir -p "$place"
    printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
        "extendedKeyUsage=$usages" "$more" >"$ca/extensions"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj "/O=fleet $fleet/CN=$name" -keyout "$place/$file.key" -out "$ca/request" 2>/dev/null
    openssl x509 -req -in "$ca/request" -CA "$ca/fleet-ca.crt" -CAkey "$ca/ca.key" -days "$days" \
        -set_serial "0x$(openssl rand -hex 15)" -extfile "$ca/extensions" \
        -out "$place/$file.crt.new" 2>/dev/null
    rm "$ca/extensions" "$ca/request"
    cp "$ca/fleet-ca.crt" "$place/"
    mv "$place/$file.crt.new" "$place/$file.crt"
    echo "$place"
done

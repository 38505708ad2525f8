"""Ask the authorization socket about a client certificate, as nginx would.

question.py LOCATION CERT       prints the status code and the reason, or the name of the error
"""

import pathlib
import socket
import sys
import urllib.parse

SOCKET = "/run/mtls-sidecar/authz.sock"


def ask(location: str, cert: str) -> str:
    pem = urllib.parse.quote(pathlib.Path(cert).read_text(), safe="")
    head = f"GET /authz/{location} HTTP/1.1\r\nHost: a\r\nSSL-Client-Verify: SUCCESS\r\n"
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(30)
            peer.connect(SOCKET)
            peer.sendall(f"{head}SSL-Client-Cert: {pem}\r\n\r\n".encode())
            told = peer.recv(65536).decode().split("\r\n")
    except OSError as error:
        return type(error).__name__
    reason = [line.partition(": ")[2] for line in told if line.lower().startswith("x-auth-reason:")]
    return " ".join([told[0].split()[1], *reason])


if __name__ == "__main__":
    print(ask(*sys.argv[1:]))

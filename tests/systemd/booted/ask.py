"""Ask the authorization socket, as nginx would; run in the booted container by its own Python.

ask.py SOCKET LOCATION          prints the status code, or the name of the error
ask.py SOCKET LOCATION FLAG     asks on new connections while the file FLAG is there; prints
                                `asked=N failed=N longest=MILLISECONDS`
"""

import os
import socket
import sys
import time


def ask(path: str, location: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(30)
            peer.connect(path)
            peer.sendall(f"GET /authz/{location} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            return peer.recv(4096).split()[1].decode()
    except OSError as error:
        return type(error).__name__
    except IndexError:
        return "closed"


def load(path: str, location: str, flag: str) -> str:
    asked = failed = 0
    longest = 0.0
    while os.path.exists(flag):
        start = time.monotonic()
        failed += ask(path, location) != "204"
        longest = max(longest, time.monotonic() - start)
        asked += 1
        time.sleep(0.002)
    return f"asked={asked} failed={failed} longest={longest * 1000:.0f}"


if __name__ == "__main__":
    print(ask(*sys.argv[1:]) if len(sys.argv) == 3 else load(*sys.argv[1:]))

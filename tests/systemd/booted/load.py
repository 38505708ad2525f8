"""A steady load through nginx with client certificates; run in the booted container.

load.py RATE FLAG NAME  asks while the file FLAG is there, but not as NAME; prints `name=value`
load.py flood SECONDS   asks without a certificate as fast as it can; prints how often

Four askers: alice is let in, carol too (asked of OCSP), bob is revoked and dave not allowed.
`failed`: no answer, or another than that.  `wrong`: bob or dave were let in.  What was
asked on a kept-alive connection that the server closes before any byte of an answer is asked again
on a new one, once, as every HTTP client does (RFC 9112, 9.3.1).
"""

import http.client
import os
import ssl
import sys
import threading
import time

EXPECTED = {"alice": 200, "carol": 200, "bob": 403, "dave": 403, "": 401}
PATHS = {"carol": "/ocsp/", "dave": "/admin/"}
PER_CONNECTION = 50
THREADS = 12


def context(name: str) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile="/pki/server-ca.crt")
    found.check_hostname = False
    if name:
        found.load_cert_chain(f"/pki/{name}.crt", f"/pki/{name}.key")
    return found


class Asker:
    def __init__(self, name: str) -> None:
        self.name, self.context = name, context(name)
        self.connection: http.client.HTTPSConnection | None = None
        self.used = 0
        self.asked = self.failed = self.wrong = self.again = 0
        self.longest = 0.0
        self.saw: dict[str, int] = {}

    def connect(self) -> http.client.HTTPSConnection:
        if self.connection is not None:
            self.connection.close()
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", 8443, timeout=30, context=self.context
        )
        self.used = 0
        return self.connection

    def once(self) -> int:
        connection = self.connection
        if connection is None or self.used >= PER_CONNECTION:
            connection = self.connect()
        self.used += 1
        connection.request("GET", PATHS.get(self.name, "/"))
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def status(self) -> int | str:
        try:
            return self.once()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            used, self.connection = self.used, None
            if used <= 1:
                return type(error).__name__
            self.again += 1
        except (OSError, http.client.HTTPException) as error:
            self.connection = None
            return type(error).__name__
        try:
            return self.once()
        except (OSError, http.client.HTTPException) as error:
            self.connection = None
            return type(error).__name__

    def ask(self) -> None:
        start = time.monotonic()
        status = self.status()
        self.longest = max(self.longest, time.monotonic() - start)
        self.asked += 1
        if status != EXPECTED[self.name]:
            self.failed += 1
            key = f"{self.name or 'nobody'}:{status}"
            self.saw[key] = self.saw.get(key, 0) + 1
        self.wrong += status == 200 != EXPECTED[self.name]


def run(asker: Asker, interval: float, flag: str) -> None:
    due = time.monotonic()
    while os.path.exists(flag):
        asker.ask()
        due = max(due + interval, time.monotonic() - 1)  # what a hold-up delayed is asked, in part
        time.sleep(max(0.0, due - time.monotonic()))


def load(rate: float, flag: str, without: str) -> str:
    names = ["alice"] * 7 + ["carol"] * 2 + ["bob", "dave", ""]
    askers = [Asker(name) for name in names if not name or name != without]
    threads = [
        threading.Thread(target=run, args=(asker, len(askers) / rate, flag)) for asker in askers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saw: dict[str, int] = {}
    for asker in askers:
        for key, count in asker.saw.items():
            saw[key] = saw.get(key, 0) + count
    told = ",".join(f"{key}x{count}" for key, count in sorted(saw.items()))
    sums = {
        name: sum(getattr(asker, name) for asker in askers)
        for name in ("asked", "failed", "wrong", "again")
    }
    longest = max(asker.longest for asker in askers)
    return (
        " ".join(f"{name}={value}" for name, value in sums.items())
        + f" longest={longest * 1000:.0f} saw={told}"
    )


def flood(seconds: float) -> int:
    end = time.monotonic() + seconds
    askers = [Asker("") for _ in range(4)]

    def ask(asker: Asker) -> None:
        while time.monotonic() < end:
            asker.ask()

    threads = [threading.Thread(target=ask, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(asker.asked for asker in askers)


if __name__ == "__main__":
    if sys.argv[1] == "flood":
        print(flood(float(sys.argv[2])))
    else:
        print(load(float(sys.argv[1]), *sys.argv[2:4]))

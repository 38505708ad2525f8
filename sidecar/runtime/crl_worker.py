"""Reading a large CRL in a process of its own, so that no decision waits for it.

A thread would hold the interpreter.  What the process has read comes back twofold: the small
parts pickled, and each large run of bytes by way of a memory file that both have mapped, so
that nothing of size is copied or unpickled here.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import pickle
import subprocess
import sys
from pathlib import Path

from sidecar.core.revocation.crl.index import Crl, CrlError, read_crl

from .files import read_file

LARGE = 64 * 1024
"""Runs of bytes from this size on go by way of the memory file."""

PATIENCE = 900
"""Seconds until a process that doesn't end is given up."""

Run = tuple[int, int]


class _Pickler(pickle.Pickler):
    """Leaves large runs of bytes in a file, page by page."""

    def __init__(self, target: io.BytesIO, descriptor: int) -> None:
        super().__init__(target, protocol=5)
        self._descriptor = descriptor
        self._end = 0

    def persistent_id(self, obj: object) -> Run | None:
        if not isinstance(obj, bytes) or len(obj) < LARGE:
            return None
        run = (self._end, len(obj))
        view = memoryview(obj)
        while view:
            view = view[os.pwrite(self._descriptor, view, run[0] + len(obj) - len(view)) :]
        self._end += -(-len(obj) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return run


class _Unpickler(pickle.Unpickler):
    """Maps what the pickler left in the file; a map answers like the bytes it holds."""

    def __init__(self, source: io.BytesIO, descriptor: int) -> None:
        super().__init__(source)
        self._descriptor = descriptor

    def persistent_load(self, pid: Run) -> mmap.mmap:
        offset, length = pid
        return mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ, offset=offset)


def read_crl_aside(
    path: Path, source: str, authorities: tuple[bytes, ...], *, trusted_only: bool
) -> Crl:
    """`read_crl` of a file, elsewhere.  Raises OSError and `CrlError`.

    Blocks until it is done; the interpreter is free meanwhile.
    """
    package = Path(__file__).resolve().parents[2]
    path_ = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    shared = os.memfd_create("crl", os.MFD_CLOEXEC)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "sidecar.runtime.crl_worker", str(shared)],
            input=pickle.dumps((str(path), source, authorities, trusted_only)),
            stdout=subprocess.PIPE,
            pass_fds=(shared,),
            env={**os.environ, "PYTHONPATH": path_},
            timeout=PATIENCE,
            check=True,
        )
        found = _Unpickler(io.BytesIO(done.stdout), shared).load()
    except subprocess.SubprocessError as error:
        raise OSError(errno.EAGAIN, f"the process that read it ended: {error}", str(path)) from None
    finally:
        os.close(shared)
    if isinstance(found, Exception):
        raise found
    crl: Crl = found
    return crl


def main() -> None:
    """The process: a question on standard input, the answer on standard output."""
    shared = int(sys.argv[1])
    with contextlib.suppress(OSError):  # the service manager may forbid it
        os.nice(5)  # decisions come first
    path, source, authorities, trusted_only = pickle.load(sys.stdin.buffer)
    try:
        found: Crl | Exception = read_crl(
            read_file(path, trusted_only=trusted_only), source, authorities
        )
    except (OSError, CrlError) as error:
        found = error
    target = io.BytesIO()
    _Pickler(target, shared).dump(found)
    sys.stdout.buffer.write(target.getvalue())


if __name__ == "__main__":
    main()

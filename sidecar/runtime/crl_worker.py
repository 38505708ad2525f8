"""Parse a large file of CRLs in a worker process, so that no decision waits for it.

A thread would block the interpreter.  The worker returns the small parts pickled, and each table of
entries in a memory file, from which the kernel copies it while the interpreter is free.
The file's own octets come in a second memory file, if they are asked for.  The worker's memory is
limited: a file that needs more is refused, and other files are not affected.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import mmap
import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.core.revocation.crl.index import CrlError, CrlFile, read_crls
from sidecar.core.revocation.crl.parse import without_padding

from .files import MAX_CRL, file_version, read_file

HERE = 1024 * 1024
"""Maximum octets of a file of CRLs that is parsed without a worker process."""

LARGE = 64 * 1024
"""Minimum octets of a table that is returned in the memory file."""

MAX_ANSWER = 1024 * 1024
"""Maximum octets of all other parts of a file of CRLs."""

MAX_MEMORY = 896 * 1024 * 1024
"""Maximum memory of one worker process, in octets."""

AT_ONCE = 2
"""Maximum number of worker processes at the same time; further files wait."""

OCTETS_AT_ONCE = 128 * 1024 * 1024
"""Maximum octets of the files that are parsed at the same time; a larger file is parsed alone.

Parsing takes twice as much memory before the signature is verified, so large files could otherwise
get the service killed.
"""

BESIDE = 32 * 1024 * 1024
"""Maximum octets of a file that waits only for files of its own authorities, and of few others.

Whoever signs CRLs that take minutes to parse holds up no others' of this size.
"""

PART = 1024 * 1024
"""Octets of a memory file that are copied at once."""

PATIENCE = 300
"""Seconds after which a worker process that doesn't end is killed."""

Run = tuple[int, int, int]
"""The position of a table or of octets: the number of the memory file, offset and length."""

Question = tuple[str | bytes, str, tuple[bytes, ...], bool, bool]
"""The question to a worker: a path or the data itself, source, authorities, trusted only, and
whether the octets are to be kept."""


MAX_TOLD = 200
"""Maximum characters of what is reported of a worker process's last words."""

MAX_OCTETS = 1024 * 1024
"""Maximum octets of a file that are kept beside its content, to be copied if the file is gone."""


Octets = bytes | mmap.mmap
"""What can be read like bytes, and may have come from a worker process."""


class CrlReading(NamedTuple):
    """The content of a file of CRLs, and the SHA-256 of its octets in hexadecimal.

    `octets`: the file itself, unless it is long and nothing of it is to be kept; of one that is for
    the most part something else than CRLs of these authorities, these alone.
    """

    found: CrlFile
    digest: str
    octets: Octets | None = None


def read_crl_file(
    path: Path,
    source: str,
    authorities: tuple[bytes, ...],
    limit: int,
    *,
    trusted_only: bool,
    to_keep: bool = False,
) -> CrlReading:
    """Read and verify a file of CRLs in this process.  Raises OSError, EFBIG beyond `limit`.

    Up to `MAX_OCTETS`, or if they are `to_keep`, the octets are returned, too.
    """
    data = read_file(path, limit, trusted_only=trusted_only)
    ders: list[bytes] = []
    found = read_crls(data, source, authorities, ders)
    if to_keep and len(data) > MAX_OCTETS:
        data = without_padding(data, ders)
    octets = data if to_keep or len(data) <= MAX_OCTETS else None
    return CrlReading(found, hashlib.sha256(data).hexdigest(), octets)


class _Pickler(pickle.Pickler):
    """Write large tables to the first memory file, each at a page boundary.

    The file's own octets go to the second.
    """

    def __init__(self, target: io.BytesIO, shared: Sequence[int], reading: CrlReading) -> None:
        super().__init__(target, protocol=5)
        self._shared = shared
        self._end = 0
        tables = [t for crl in reading.found.crls for t in (crl.entries.own, crl.entries.others)]
        runs = [run for table in tables for run in (table.data, table.starts)]
        self._runs = {id(run) for run in runs if len(run) >= LARGE}
        self._octets = reading.octets

    def persistent_id(self, obj: object) -> Run | None:
        if not isinstance(obj, bytes):
            return None
        if obj is self._octets:
            return self._write(1, 0, obj)
        if id(obj) not in self._runs:
            return None
        start = self._end
        self._end += -(-len(obj) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return self._write(0, start, obj)

    def _write(self, number: int, start: int, octets: bytes) -> Run:
        view, at = memoryview(octets), start
        while view:
            written = os.pwrite(self._shared[number], view, at)
            view, at = view[written:], at + written
        return number, start, len(octets)


class _Unpickler(pickle.Unpickler):
    """Copy what is in the memory files to memory that can be used like bytes.

    A map of the file would hold a descriptor for as long as the table is in force.
    """

    def __init__(self, source: io.BytesIO, shared: Sequence[int]) -> None:
        super().__init__(source)
        self._shared = shared
        self._rooms: list[tuple[int, int, mmap.mmap]] = []

    def persistent_load(self, pid: Run) -> Octets:
        """Make room for it."""
        number, start, length = pid
        if not length:
            return b""
        room = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE)
        self._rooms.append((number, start, room))
        return room

    def read(self) -> Any:
        """Load everything, and empty the files.  Raises EOFError."""
        found = self.load()
        for number, start, room in sorted(self._rooms, key=lambda each: each[:2], reverse=True):
            _move(self._shared[number], start, room)
        return found


def _move(file: int, start: int, room: mmap.mmap) -> None:
    """Move the end of a file to memory, part by part from behind: it isn't there twice."""
    with memoryview(room) as view:
        for at in reversed(range(0, len(room), PART)):
            part = view[at : at + PART]
            if os.preadv(file, [part], start + at) != len(part):
                raise EOFError("a part of its answer is missing")
            os.ftruncate(file, start + at)


class CrlWorkers:
    """Run worker processes that parse files of CRLs, a few at a time; `close` ends them."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._sizes: list[int] = []  # of the files that are being parsed
        self._owners: list[tuple[bytes, ...]] = []  # the authorities of each
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def read_file(
        self,
        path: Path,
        source: str,
        authorities: tuple[bytes, ...],
        *,
        trusted_only: bool,
        to_keep: bool = False,
    ) -> CrlReading:
        """Read a file of up to `HERE` octets in this process, a larger one as `read` does.

        Not by its size as seen before: the fetcher could exchange it for a larger one meanwhile.
        """
        try:
            return read_crl_file(path, source, authorities, HERE, trusted_only=trusted_only)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
        return self.read(path, source, authorities, trusted_only=trusted_only, to_keep=to_keep)

    def read(
        self,
        path: Path,
        source: str,
        authorities: tuple[bytes, ...],
        *,
        trusted_only: bool,
        to_keep: bool = False,
    ) -> CrlReading:
        """Run `read_crl_file` in a worker process.  Blocks, but leaves the interpreter free.

        Raises OSError, and `CrlError` if the file takes too much memory.
        """
        place = str(path.absolute())
        return CrlReading(*self._ask((place, source, authorities, trusted_only, to_keep)))

    def read_data(self, data: bytes, source: str, authorities: tuple[bytes, ...]) -> CrlFile:
        """Run `read_crls` in a worker process.  Blocks and raises as `read` does."""
        return CrlReading(*self._ask((data, source, authorities, False, False))).found

    def _ask(self, question: Question) -> Any:
        place, size = _place(question)
        with self._in_turn(size, question[2]):
            shared: list[int] = []
            try:
                shared += (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("crl", "octets"))
                limit = min(size, MAX_CRL)  # whatever is there by then
                answer = self._run(pickle.dumps((question, limit)), shared)
                found = _Unpickler(io.BytesIO(answer), shared).read()
            except (subprocess.SubprocessError, EOFError) as error:
                why = f"the worker process that parsed it ended: {error}{_last_line(error)}"
                raise OSError(errno.EAGAIN, why, place) from None
            finally:
                for descriptor in shared:
                    os.close(descriptor)
        if isinstance(found, Exception):
            raise found
        return found

    @contextlib.contextmanager
    def _in_turn(self, size: int, owner: tuple[bytes, ...]) -> Iterator[None]:
        """Wait until a file of this many octets, signed by these authorities, may be parsed."""

        def is_room() -> bool:
            if len(set(self._owners)) < 2 and owner not in self._owners and size <= BESIDE:
                return True
            few = len(self._sizes) < AT_ONCE
            return few and (not self._sizes or sum(self._sizes) + size <= OCTETS_AT_ONCE)

        with self._turn:
            self._turn.wait_for(is_room)
            self._sizes.append(size)
            self._owners.append(owner)
        try:
            yield
        finally:
            with self._turn:
                self._sizes.remove(size)
                self._owners.remove(owner)
                self._turn.notify_all()

    def _run(self, question: bytes, shared: Sequence[int]) -> bytes:
        package = Path(__file__).resolve().parents[2]
        # What measures the tests; of root's other variables the user may see none.
        environ = {name: v for name, v in os.environ.items() if name.startswith("COVERAGE_")}
        with subprocess.Popen(
            # -P: do not import a `sidecar.py` from the working directory
            [sys.executable, "-P", "-m", "sidecar.runtime.crl_worker", *map(str, shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=shared,
            cwd="/",
            env={**environ, "PYTHONPATH": str(package)},
            # Nothing of root's: `fetch --once` has given up its rights, and its user may trace
            # this process and take what is open in it (a terminal can be read, too).
            start_new_session=True,
        ) as process:
            self._processes.add(process)
            try:
                if self._closed:
                    process.kill()
                answer, told = process.communicate(question, timeout=PATIENCE)
            except BaseException:
                process.kill()
                raise
            finally:
                self._processes.discard(process)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "crl_worker", stderr=told)
        return answer

    def close(self) -> None:
        """Kill the running worker processes."""
        self._closed = True
        for process in list(self._processes):
            process.kill()


def _last_line(error: Exception) -> str:
    """What a process that has ended said last, such as the exception of its traceback."""
    told = getattr(error, "stderr", None) or b""
    lines = told.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f": {last[:MAX_TOLD]}" if last else ""


def _place(question: Question) -> tuple[str | None, int]:
    """Return the path of a worker's input, if it has one, and its size in octets."""
    what = question[0]
    if isinstance(what, bytes):
        return None, len(what)
    found = file_version(what)
    return what, found.size if found else 0


def main() -> None:
    """Run the worker process: read a question from stdin, write the answer to stdout."""
    shared = [int(each) for each in sys.argv[1:]]
    with contextlib.suppress(OSError):  # the service manager may forbid it
        os.nice(5)  # decisions have priority
    with contextlib.suppress(OSError):  # if memory runs out, this process is killed first
        Path("/proc/self/oom_score_adj").write_text("1000")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    memory = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))
    question, limit = pickle.load(sys.stdin.buffer)
    target = io.BytesIO()
    try:
        found = _found(question, limit)
        _Pickler(target, shared, found).dump(tuple(found))  # this module is __main__ here
        if len(target.getbuffer()) > MAX_ANSWER:
            raise CrlError("its names and extensions are too large", "use a CRL with smaller names")
    except MemoryError:
        why = f"parsing it takes more than {memory >> 20} MiB of memory"
        _answer(CrlError(why, "have the CA issue smaller CRLs, by distribution point"))
    except (OSError, CrlError) as error:
        _answer(error)
    else:
        sys.stdout.buffer.write(target.getvalue())


def _found(question: Question, limit: int) -> CrlReading:
    place, source, authorities, trusted_only, to_keep = question
    if isinstance(place, bytes):
        return CrlReading(read_crls(place, source, authorities), "")
    found = read_crl_file(
        Path(place), source, authorities, limit, trusted_only=trusted_only, to_keep=to_keep
    )
    return found if found.found.crls else found._replace(octets=None)


def _answer(error: Exception) -> None:
    sys.stdout.buffer.write(pickle.dumps(error))


if __name__ == "__main__":
    main()

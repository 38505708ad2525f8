#!/usr/bin/env python3
"""Sign for a fleet with an Ed25519 key of an SSH agent, as `signer: command:` of sidecar.yaml.

sign-with-agent.py KEY.pub     signs standard input, prints the signature in base64
sign-with-agent.py --public KEY.pub     prints the key as `keys:` and `public:` take it

The agent is the one of SSH_AUTH_SOCK: of this machine, forwarded from another one, or of a token.
The protocol is that of draft-ietf-sshm-ssh-agent, 4.5; an Ed25519 signature of SSH (RFC 8709, 6)
is over the octets themselves.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys

SIGN_REQUEST, SIGN_RESPONSE = 13, 14
MAX_ANSWER = 256 * 1024
KIND = b"ssh-ed25519"
SECONDS = 50


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def take(data: bytes) -> tuple[bytes, bytes]:
    """A string of SSH, and what is behind it.  Raises ValueError."""
    if len(data) < 4 or len(data) - 4 < (size := struct.unpack(">I", data[:4])[0]):
        raise ValueError("the agent's answer is cut off")
    return data[4 : 4 + size], data[4 + size :]


def read_key(path: str) -> bytes:
    """The public key of a file of ssh-keygen.  Raises OSError, ValueError."""
    with open(path, encoding="utf-8") as file:
        words = file.read(16384).split()
    if len(words) < 2 or words[0] != KIND.decode():
        raise ValueError(f"{path} is no ssh-ed25519 public key; make one: ssh-keygen -t ed25519")
    blob = base64.b64decode(words[1], validate=True)
    if take(blob)[0] != KIND or len(blob) != 4 + len(KIND) + 4 + 32:
        raise ValueError(f"{path} is no ssh-ed25519 public key")
    return blob


def exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise ValueError("the agent closed the connection")
        data += part
    return data


def signature(blob: bytes, data: bytes) -> bytes:
    """What the agent signs.  Raises OSError, ValueError."""
    place = os.environ.get("SSH_AUTH_SOCK")
    if not place:
        raise ValueError("there is no SSH agent: SSH_AUTH_SOCK is not set")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(SECONDS)
        peer.connect(place)
        peer.sendall(string(bytes([SIGN_REQUEST]) + string(blob) + string(data) + bytes(4)))
        size = struct.unpack(">I", exactly(peer, 4))[0]
        if not 0 < size <= MAX_ANSWER:
            raise ValueError("the agent's answer is none")
        answer = exactly(peer, size)
    if answer[0] != SIGN_RESPONSE:
        raise ValueError("the agent does not sign: does `ssh-add -L` list the key?")
    kind, rest = take(take(answer[1:])[0])
    if kind != KIND:
        raise ValueError(f"the agent signed as {kind[:32]!r}")
    return take(rest)[0]


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["--public", path]:
                print(f"ed25519 {base64.b64encode(read_key(path)[-32:]).decode()}")
            case [path] if not path.startswith("-"):
                made = signature(read_key(path), sys.stdin.buffer.read())
                print(base64.b64encode(made).decode())
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except OSError as error:
        why = error.strerror or "it does not answer"
        print(f"sign-with-agent.py: {error.filename or 'the agent'}: {why}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"sign-with-agent.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

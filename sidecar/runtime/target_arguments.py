"""The arguments by which `revoke` and `fleet revoke` are told what to deny."""

from __future__ import annotations

import argparse

_FORMS = {
    "file": "the target is a certificate's file",
    "serial": "the target is a serial number, in hexadecimal",
    "fingerprint": "the target is a SHA-256 fingerprint",
    "name": "the target is a client of enroll: NAME, or NAME/DEVICE",
}
"""The kinds of a target that an option can state."""


def add_target(parser: argparse.ArgumentParser, *, clients: bool = False) -> None:
    """Add the arguments; `clients`: those of enroll can be named, too."""
    metavar = "CERT|SERIAL|FINGERPRINT" + "|CLIENT" * clients
    parser.add_argument("target", nargs="?", metavar=metavar)
    for form, meaning in _FORMS.items():
        if clients or form != "name":
            parser.add_argument(f"--{form}", nargs="?", const=True, metavar="TARGET", help=meaning)
    parser.add_argument("--key", action="store_true", help="deny the key, not the certificate")
    parser.add_argument(
        "--until", default="", metavar="DATE", help="the day on which the denial ends"
    )


def stated_target(
    options: argparse.Namespace, command: str, *, listing: bool = False
) -> tuple[str, str]:
    """The target, and its form if an option states it; none with `listing`.  Raises ValueError."""
    said = {form: given for form in _FORMS if (given := getattr(options, form, None)) is not None}
    texts = [each for each in (options.target, *said.values()) if isinstance(each, str)]
    if len(said) > 1 or len(texts) != (0 if listing else 1):
        ways = [f"{command} CERT", f"{command} --serial 0A1B", f"{command} --fingerprint SHA256"]
        raise ValueError(f"say one target: {', '.join(ways)}, {command} --file CERT")
    return "".join(texts), "".join(said)

"""Who signs: a key that is checked before it is used, or a command whose answer is checked."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization import PrivateFormat as Format
from issuing import own_ca, request, settings_of
from pki import CA, CLIENT_AUTH, SERVER_AUTH, Leaf, now
from tools import easyrsa, need

from sidecar.enroll.authority import make_authority
from sidecar.enroll.certificate_profile import Identity
from sidecar.enroll.issuer import CommandIssuer, IssuerError, load_issuer, load_key_issuer
from sidecar.enroll.settings import IssuerSettings
from sidecar.enroll.signing_request import read_request

ROOT = Path(__file__).resolve().parents[3]


# -- a key of our own


def files(tmp_path: Path, ca: CA | Leaf, passphrase: bytes = b"secret") -> IssuerSettings:
    """A CA's files, the key encrypted."""
    private = ca.key if isinstance(ca, CA) else ca.private
    encrypted = BestAvailableEncryption(passphrase)
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    (tmp_path / "ca.key").write_bytes(private.private_bytes(Encoding.PEM, Format.PKCS8, encrypted))
    (tmp_path / "passphrase").write_bytes(passphrase + b"\n")
    names = ("ca.crt", "ca.key", "passphrase")
    cert, key, secret = (str(tmp_path / name) for name in names)
    return IssuerSettings(cert, key, secret)


def test_a_passphrase_comes_from_a_file_or_a_credential(tmp_path: Path) -> None:
    """systemd's credential directory is looked in for `credential:NAME`."""
    settings = files(tmp_path, CA("Own"))
    assert load_key_issuer(settings, {}).certificate.subject.rfc4514_string() == "CN=Own"
    named = IssuerSettings(settings.cert, settings.key_, "credential:passphrase")
    assert load_key_issuer(named, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(ValueError, match="systemd gave no credentials"):
        load_key_issuer(named, {})


def test_a_secret_that_everyone_can_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key or passphrase with o+r in directories with o+x; not one of the group, or behind a
    directory that is closed."""
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_mode & 0o001 == 0:
            each.chmod(each.stat().st_mode | 0o001)  # pytest's directories are its user's alone
    settings = files(tmp_path, CA("Own"))
    for mode, above, told in ((0o640, 0o755, 0), (0o644, 0o755, 2), (0o644, 0o750, 0)):
        tmp_path.chmod(above)
        for name in ("ca.key", "passphrase"):
            (tmp_path / name).chmod(mode)
        caplog.clear()
        load_key_issuer(settings, {})
        assert caplog.text.count("can be read by everyone") == told


def test_what_cannot_issue_is_told_at_the_start(tmp_path: Path) -> None:
    """Another's key, a wrong passphrase, no CA: each with the file's name."""
    settings = files(tmp_path, CA("Own"))
    (tmp_path / "passphrase").write_bytes(b"wrong")
    with pytest.raises(ValueError, match=r"ca\.key can't be read with this passphrase"):
        load_key_issuer(settings, {})
    (tmp_path / "passphrase").write_bytes(b"\n")
    with pytest.raises(ValueError, match="is empty"):
        load_key_issuer(settings, {})
    with pytest.raises(ValueError, match="add passphrase_file"):
        load_key_issuer(IssuerSettings(settings.cert, settings.key_), {})
    files(tmp_path, CA("Own"))
    (tmp_path / "ca.crt").write_bytes(CA("Other").pem)
    with pytest.raises(ValueError, match="is not the key of the certificate"):
        load_key_issuer(settings, {})
    with pytest.raises(ValueError, match="is not a CA's certificate"):
        load_key_issuer(files(tmp_path, CA("Own").issue("alice")), {})
    (tmp_path / "ca.crt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no readable certificate"):
        load_key_issuer(settings, {})


def test_an_authority_is_made_once_and_below_a_root_too(tmp_path: Path) -> None:
    """`enroll init`: the key encrypted and private; a CSR for an offline root; never twice."""
    place = {name: str(tmp_path / name) for name in ("ca.crt", "ca.key", "passphrase")}
    settings = IssuerSettings(place["ca.crt"], place["ca.key"], place["passphrase"])
    told = make_authority(settings, {}, name="Own", below_root=True, now=time.time())
    assert "pathlen 0" in told[1]
    assert b"ENCRYPTED" in (tmp_path / "ca.key").read_bytes()
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="put the CA's certificate there"):
        make_authority(settings, {}, name="Own", below_root=False, now=time.time())
    csr = x509.load_pem_x509_csr((tmp_path / "ca.csr").read_bytes())
    root = CA("Root")
    builder = x509.CertificateBuilder(
        root.subject, csr.subject, csr.public_key(), 5, now(), now() + timedelta(days=9)
    )
    for each in csr.extensions:
        builder = builder.add_extension(each.value, each.critical)
    signed = builder.sign(root.key, own_ca().certificate.signature_hash_algorithm)  # type: ignore[arg-type]  # SHA-256
    (tmp_path / "ca.crt").write_bytes(signed.public_bytes(Encoding.PEM) + root.pem)
    (line,) = make_authority(settings, {}, name="Own", below_root=True, now=time.time())
    assert "nothing to make" in line
    assert load_key_issuer(settings, {}).chain[1] == root.cert


# -- a command


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    more = "profiles: {default: {validity: 10d, email: '{name}@example.com'}}\n"
    return Identity("alice", "phone", settings_of(tmp_path, more).profile("default"))


def prints(tmp_path: Path, text: str) -> CommandIssuer:
    """A command that prints a text, whatever it is asked."""
    (tmp_path / "answer").write_text(text)
    return CommandIssuer(("/bin/cat", str(tmp_path / "answer")), 30)


def issue(issuer: CommandIssuer, identity: Identity, csr: str) -> str:
    """The error of a command that made no certificate of use, or nothing."""
    try:
        issuer.issue(identity, read_request(csr), time.time())
    except IssuerError as error:
        return str(error)
    return ""


def test_the_certificate_of_a_command_must_be_what_was_asked_for(
    tmp_path: Path, identity: Identity
) -> None:
    """Another key, name, group, SAN, purpose or time, a CA's: refused; what fits is taken."""
    profile = replace(identity.profile, ou=("staff",))
    identity = replace(identity, profile=profile)
    ca, key = CA("Another"), CA("Key").key
    csr = request("alice", key)  # type: ignore[arg-type]  # EC

    def answer(**changed: object) -> str:
        given: dict[str, object] = {"cn": "alice", "email": ["alice@example.com"], "key": key}
        given |= {"ou": ["staff"], "not_after": now() + timedelta(days=10, hours=23)}
        leaf = ca.issue(**{**given, **changed})  # type: ignore[arg-type]  # by name
        return issue(prints(tmp_path, leaf.pem.decode()), identity, csr)

    assert answer() == ""
    assert "another key" in answer(key="ec")
    assert "its subject is 'CN=root," in answer(cn="root")
    assert "its subject" in answer(cn="", cns=["alice", "root"])
    assert "alternative names are none" in answer(email=[])
    assert "alternative names" in answer(email=["alice@example.com"], dns=["bank.example.com"])
    assert "no clientAuth" in answer(eku=[SERVER_AUTH])
    assert answer(eku=[CLIENT_AUTH, SERVER_AUTH]) == ""
    assert "it is valid from" in answer(not_after=now() - timedelta(days=1))
    assert "it is valid from" in answer(not_before=now() + timedelta(days=1))
    assert "it is valid from" in answer(not_after=now() + timedelta(days=12))
    assert "its subject" in answer(ou=["staff", "admins"])
    assert answer(ou=[], o="Example") == ""
    made = CA("x", key=key, issuer=ca, subject=identity.subject())
    assert "it is a CA's" in issue(prints(tmp_path, made.pem.decode()), identity, csr)


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path, identity: Identity) -> None:
    """Its exit code and stderr; a program that isn't there, that hangs, that prints none."""
    csr = request("alice")
    assert "printed no certificate" in issue(prints(tmp_path, "hello"), identity, csr)
    for script, why in (
        ("echo no such luck >&2; exit 3", r"failed (3): no such luck"),
        ("printf '\\033[31mred' >&2; exit 1", r"\u001b[31mred"),
        ("exec sleep 60", "took more than"),
    ):
        issuer = CommandIssuer(("/bin/sh", "-c", script), 0.3 if "sleep" in script else 30)
        assert why in issue(issuer, identity, csr)
    missing = CommandIssuer((str(tmp_path / "missing"),), 30)
    assert "can't be started" in issue(missing, identity, csr)


def test_a_command_learns_whom_the_certificate_is_for(tmp_path: Path, identity: Identity) -> None:
    """By its environment, and reads the CSR from stdin."""
    script = f"cat >{tmp_path}/csr; env | grep ^MTLS_SIDECAR >{tmp_path}/env"
    issue(CommandIssuer(("/bin/sh", "-c", script), 30), identity, csr := request("alice"))
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert told == {
        "MTLS_SIDECAR_NAME": "alice",
        "MTLS_SIDECAR_DEVICE": "phone",
        "MTLS_SIDECAR_PROFILE": "default",
        "MTLS_SIDECAR_SUBJECT": "CN=alice",
        "MTLS_SIDECAR_SAN": "email:alice@example.com",
        "MTLS_SIDECAR_DAYS": "10",
        "MTLS_SIDECAR_SECONDS": "864000",
    }
    assert (tmp_path / "csr").read_text() == csr


def test_easyrsa_signs(tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """deploy/issuers/easyrsa.sh with a real EasyRSA: names and days are those asked for."""
    tool = need(easyrsa())
    path = os.pathsep.join([str(tool.path.parent), os.environ["PATH"]])
    env = {**tool.env, "PATH": path, "EASYRSA": str(tool.path.parent)}
    env |= {"EASYRSA_PKI": str(tmp_path / "pki"), "EASYRSA_BATCH": "1", "EASYRSA_ALGO": "ec"}
    env |= {"EASYRSA_REQ_CN": "EasyRSA CA"}
    for command in ("init-pki", "build-ca nopass"):
        done = tool.run(*command.split(), env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings = IssuerSettings(
        cert=str(tmp_path / "pki/ca.crt"), command=(str(ROOT / "deploy/issuers/easyrsa.sh"),)
    )
    issuer = load_issuer(settings, env)
    issued = issuer.issue(identity, read_request(request("alice")), time.time())
    ca = x509.load_pem_x509_certificate((tmp_path / "pki/ca.crt").read_bytes())
    issued.certificate.verify_directly_issued_by(ca)
    assert issued.chain == (ca,)
    left = issued.certificate.not_valid_after_utc - now()
    assert timedelta(days=9) < left <= timedelta(days=10)
    second = issuer.issue(identity, read_request(request("alice")), time.time())
    assert second.certificate.serial_number != issued.certificate.serial_number


def test_step_ca_s_token_is_no_argument(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """deploy/issuers/step-ca.sh hands it on as a variable (step's STEP_TOKEN): every local user may
    read arguments, and could have a key of his own signed with it first."""
    step = tmp_path / "step"
    step.write_text(
        f"""#!/bin/sh
echo "$@" >>{tmp_path}/arguments
case $2 in
    token) echo s3cret ;;
    sign) echo "$STEP_TOKEN" >{tmp_path}/token; for each in "$@"; do out=$each; done; : >"$out" ;;
esac
"""
    )
    step.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STEP_PROVISIONER", "enroll")
    monkeypatch.setenv("STEP_PASSWORD_FILE", "/dev/null")
    settings = IssuerSettings(command=(str(ROOT / "deploy/issuers/step-ca.sh"),))
    with pytest.raises(IssuerError):  # this step makes no certificate
        load_issuer(settings, {}).issue(identity, read_request(request("alice")), time.time())
    assert (tmp_path / "token").read_text() == "s3cret\n"
    arguments = (tmp_path / "arguments").read_text()
    assert "s3cret" not in arguments
    assert "--provisioner enroll" in arguments

"""A key of a CA without a CRL of its own, while that of another key says good, is told of."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cryptography import x509
from der import der_extension
from pki import CA, now

from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

ROOT = CA("Root")
END = now() + timedelta(days=90)
OLD = CA("Issuing", issuer=ROOT, not_after=END)
NEW = CA("Issuing", issuer=ROOT)
USES = """digital_signature content_commitment key_encipherment data_encipherment key_agreement
key_cert_sign crl_sign encipher_only decipher_only""".split()
POLICY = """\
version: 1
trust:
  t: {ca: root.crt, intermediates: i.crt, crl: a.crl, revocation: REVOCATION}
locations:
  - {name: site, allow: verified}
"""


class Told:
    """What `check` tells of keys without a CRL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(
        self, below: bytes, crl: bytes, revocation: str = "required", at: float | None = None
    ) -> list[str]:
        for name, data in {"root.crt": ROOT.pem, "i.crt": below, "a.crl": crl}.items():
            (self.directory / name).write_bytes(data)
        text = POLICY.replace("REVOCATION", revocation).encode()
        sources = DirectSources(self.directory, self.directory)
        policy = compile_policy(text, "policy.yaml", sources)
        found = policy.warnings_at(now().timestamp() if at is None else at)
        return [str(each) for each in found if "no CRL is in force by the key" in str(each)]


def test_a_key_without_a_crl_beside_another_one_is_told_of(tmp_path: Path) -> None:
    """Which one, by its certificate, whose CRL says good, and what to do; until its CA ends."""
    told, both = Told(tmp_path), OLD.pem + NEW.pem
    for mode in ("required", "best_effort"):
        [text] = told(both, NEW.crl(), mode)
        assert f"CA 'CN=Issuing' with the serial number {OLD.cert.serial_number:X}: a.crl" in text
        assert "if the CA has a CRL for each of its keys (Windows), name that one in `crl`" in text
    assert told(both, NEW.crl(), at=END.timestamp() + 1) == []
    [text] = told(both, OLD.crl())
    assert f"{NEW.cert.serial_number:X}" in text
    assert told(both, NEW.crl() + OLD.crl(number=5, delta_base=4))
    assert told(both, NEW.crl() + OLD.crl()) == []
    assert told(both, NEW.crl(), "off") == []


def test_a_ca_with_one_key_or_another_one_for_crls_alone_is_fine(tmp_path: Path) -> None:
    """So is one that was certified twice; and one of the same name under another root says
    nothing of its clients in any case."""
    told = Told(tmp_path)
    again = CA("Issuing", issuer=ROOT, key=NEW.key)
    assert told(NEW.pem + again.pem, NEW.crl()) == []
    namesake = CA("Issuing", issuer=CA("Other root"))
    assert told(NEW.pem + namesake.pem, NEW.crl()) == []
    usage = x509.KeyUsage(*[each == "crl_sign" for each in USES])
    signer = ROOT.forge(NEW.name, extensions=[der_extension(usage)])
    assert told(NEW.pem + signer.pem, NEW.crl(key=signer.private)) == []

"""What `doctor` may find: each kind with how bad it is and why it matters."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """The consequence of a finding."""

    OPEN = "open"
    """Somebody gets past, or is taken for another."""
    CLOSED = "closed"
    """Somebody is locked out who shouldn't be."""
    COST = "cost"
    """Right, and slower than need be, or left over."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """How bad a finding of this kind is, and why."""

    severity: Severity
    why: str


_OPEN, _CLOSED, _COST = Severity.OPEN, Severity.CLOSED, Severity.COST

FINDING_KINDS = {
    "not-asked": FindingKind(_OPEN, "whoever knows the address gets in without a certificate"),
    "never-asks": FindingKind(_OPEN, "what the other server protects is reached by this one"),
    "return-first": FindingKind(_OPEN, "`return` runs before auth_request, so nobody is asked"),
    "rewrite-first": FindingKind(
        _OPEN, "`rewrite` runs before auth_request, and nobody is asked where it leads"
    ),
    "question-rewritten": FindingKind(
        _OPEN,
        "a server's rewrites run for the question too; a 2xx of the application lets all in",
    ),
    "question-redirected": FindingKind(
        _CLOSED, "nginx answers its own question, by a redirect or a refusal: nobody gets in"
    ),
    "set-undone": FindingKind(
        _OPEN,
        "the question runs this again, and the request goes on with that value instead of its own",
    ),
    "regex-takes": FindingKind(
        _OPEN, "a regular expression goes before a prefix without ^~, so the other is never asked"
    ),
    "script-path": FindingKind(
        _OPEN, "PHP runs a script for whatever follows its name, and scripts take it for the path"
    ),
    "slashes-kept": FindingKind(
        _OPEN, "many applications take // for /, and so show what the other location is to keep"
    ),
    "dots-passed-on": FindingKind(
        _OPEN,
        "nginx decides about the path without its dots; many applications don't resolve them",
    ),
    "line-ends": FindingKind(
        _OPEN,
        "a line end begins another header, and so an identity, or another request: nobody is asked",
    ),
    "alias-traversal": FindingKind(
        _OPEN, "`..` behind the prefix leads above what the location is for"
    ),
    "subrequest": FindingKind(
        _OPEN, "nginx asks nobody about its own subrequests: what they fetch goes to anybody"
    ),
    "tunnel": FindingKind(
        _OPEN,
        "whoever may CONNECT there reaches it past every question, and says himself who he is",
    ),
    "prefix-replaced": FindingKind(
        _OPEN, "under this prefix all of the application is reached, where another is asked about"
    ),
    "target-from-client": FindingKind(
        _OPEN,
        "the client chooses what nginx leads to: also what another location, or nobody, is to show",
    ),
    "uri-changed": FindingKind(
        _OPEN,
        "the sidecar is asked about the URI that the client wrote, and another path is served",
    ),
    "chosen-otherwise": FindingKind(
        _OPEN, "the sidecar chooses another location of the policy than nginx serves the URI by"
    ),
    "method-changed": FindingKind(
        _OPEN, "rules ask for the method, and the application gets another one"
    ),
    "address-from-client": FindingKind(
        _OPEN, "whoever writes it chooses the address by which rules let him in"
    ),
    "early-data": FindingKind(
        _OPEN, "who recorded a request can send it again, and it is allowed again"
    ),
    "several-cas": FindingKind(
        _OPEN, "whoever has a certificate of either goes by its name: anybody's alice is alice"
    ),
    "sni-raw": FindingKind(
        _OPEN, "a line end in the client's server name writes headers of the question"
    ),
    "sni-not-last": FindingKind(
        _OPEN, "a line end in it would go before, and so replace, what follows"
    ),
    "satisfy-any": FindingKind(_OPEN, "an `allow` or a password lets in whom the sidecar denies"),
    "no-auth-location": FindingKind(
        _OPEN, "the question ends in another location, where a 2xx lets all in, or in a 404: 500"
    ),
    "auth-location-returns": FindingKind(
        _OPEN, "nginx answers its own question; a 2xx lets all in"
    ),
    "not-internal": FindingKind(
        _OPEN, "clients may ask the sidecar themselves, and learn the policy"
    ),
    "wrong-uri": FindingKind(_CLOSED, "the sidecar answers 400, which nginx makes a 500"),
    "proxy-pass-request-headers": FindingKind(
        _OPEN, "a header that nginx doesn't set is then the client's own"
    ),
    "proxy-pass-request-body": FindingKind(
        _CLOSED, "a question with a body is a 400, so every POST is denied"
    ),
    "error-page-open": FindingKind(
        _OPEN, "it holds in the auth location too, where a 200 means allow: with the sidecar gone"
    ),
    "denial-passed-on": FindingKind(
        _OPEN, "whom the sidecar denies, the application serves all the same"
    ),
    "error-page-asks": FindingKind(
        _CLOSED, "the page is asked about as well, so it is never shown"
    ),
    "header-missing": FindingKind(_CLOSED, "without it the sidecar denies what rests on it"),
    "origin-missing": FindingKind(
        _OPEN, "`same_origin` takes what another site's page asks for the application's own"
    ),
    "header-wrong": FindingKind(
        _OPEN, "the sidecar decides about something else than nginx serves"
    ),
    "question-broken": FindingKind(
        _CLOSED, "the sidecar can't be asked so, which is a 500, for some requests or for all"
    ),
    "denial-retried": FindingKind(
        _OPEN, "a denial is an answer: another instance may not know of a revocation yet"
    ),
    "destination-unasked": FindingKind(
        _OPEN, "nobody is asked about the path in Destination, and what is there is overwritten"
    ),
    "header-twice": FindingKind(
        _CLOSED, "a repeated control header is a 400, so everybody is denied"
    ),
    "cache-key": FindingKind(_OPEN, "one client's answer serves another"),
    "cache-stale": FindingKind(_OPEN, "old answers go on letting people in, revoked ones too"),
    "cache-longer": FindingKind(_OPEN, "nginx keeps answers longer than the sidecar allows"),
    "identity-lost": FindingKind(
        _OPEN, "what a client sends under this name reaches the application"
    ),
    "identity-from-client": FindingKind(
        _OPEN, "the application believes what the client says it is"
    ),
    "page-from-client": FindingKind(
        _OPEN, "the second authorizer decides about the page that the client names, not its own"
    ),
    "session-shared": FindingKind(
        _OPEN, "a TLS session of one server resumes at the other and still says SUCCESS"
    ),
    "no-verify": FindingKind(
        _CLOSED, "nginx asks for no client certificate, so everybody is denied"
    ),
    "no-ca": FindingKind(_CLOSED, "nginx has no CA to verify client certificates by"),
    "no-ca-no-trust": FindingKind(
        _CLOSED, "nginx says FAILED of any issuer it doesn't know, and no trust verifies the chain"
    ),
    "unknown-name": FindingKind(
        _CLOSED, "the policy knows no such location, so everybody is denied"
    ),
    "broken-policy": FindingKind(_CLOSED, "names and caches couldn't be held against it"),
    "socket-closed": FindingKind(_CLOSED, "nginx can't ask, so everybody is denied"),
    "exemption-broken": FindingKind(_COST, "it exempts nothing"),
    "exemption-unused": FindingKind(
        _COST, "what is no longer there may come back, and nobody would know"
    ),
    "never-asked": FindingKind(
        _COST, "nobody is held to it; perhaps its name is misspelt in nginx"
    ),
    "no-keepalive": FindingKind(
        _COST, "every decision costs a new connection (from nginx 1.29.7 on it's the default)"
    ),
    "no-http11": FindingKind(
        _COST, "nginx before 1.29.7 speaks HTTP/1.0, so every decision costs a new connection"
    ),
    "connection-close": FindingKind(
        _COST, "nginx before 1.29.7 sends `Connection: close`, a new connection each time"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend: its kind, where, what, and the line to write."""

    id: str
    file: str
    line: int
    what: str
    write: str
    accepted: str = ""
    """Why it is meant, where the configuration says so: see `exemptions`."""
    name: str = ""
    """The policy's location that is meant, where the line doesn't tell: a reason has to name it."""

    @property
    def severity(self) -> Severity:
        """What comes of it."""
        return FINDING_KINDS[self.id].severity

    @property
    def why(self) -> str:
        """Why it matters."""
        return FINDING_KINDS[self.id].why

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        if self.accepted:
            what = f"{place}: [{self.id}] accepted: {self.what}"
            return f"{what}\n    reason: {self.accepted}"
        return (
            f"{place}: [{self.id}] {self.severity}: {self.what}\n"
            f"    why: {self.why}\n    write: {self.write}"
        )


def as_json(findings: list[Finding]) -> str:
    """The findings for programs."""
    rows = [{**asdict(each), "severity": each.severity, "why": each.why} for each in findings]
    return json.dumps(rows, indent=2)

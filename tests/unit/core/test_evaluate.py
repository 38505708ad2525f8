"""Decide requests step by step, without a socket."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from asking import NOW, ask, policy, request, site
from counted import calls
from cryptography import x509
from pki import CA, SERVER_AUTH, now

from sidecar.core.decision import Decision, Reason, Step
from sidecar.core.evaluate import STEPS, evaluate
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.ocsp.response import OcspAnswer, ocsp_key
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der

staff = CA("Staff")
partners = CA("Partners")
alice = staff.issue("alice", ou=["SRE"], dns=["app.example.com"])
bob = staff.issue("bob")
eve = partners.issue("alice")

TRUST = "trust:\n  staff: {ca: staff.crt}\n  partners: {ca: partners.crt}\n"
FILES = {"staff_crt": staff.pem, "partners_crt": partners.pem}


def trusting(location: str, trust: str = TRUST, **files: bytes) -> Policy:
    text = f"version: 1\n{trust}locations:\n  - {{name: site, {location}}}\n"
    return policy(text, **{**FILES, **files})


def reason(*args: Any, **options: Any) -> Reason:
    return ask(*args, **options).reason


def test_the_simplest_policy() -> None:
    """A policy of four lines allows alice and bob, and nobody else."""
    rules = site("[{cn: [alice, bob]}]")
    assert ask(rules, alice).status == 204
    assert reason(rules, staff.issue("mallory")) is Reason.NOT_ALLOWED
    assert reason(rules) is Reason.NO_CERTIFICATE
    assert reason(rules, alice, "nowhere") is Reason.UNKNOWN_LOCATION


@pytest.mark.parametrize(
    "verify", ["NONE", "FAILED:certificate has expired", "success", "SUCCESS ", "", "SUCCESS,NONE"]
)
def test_only_exactly_success_verifies(verify: str) -> None:
    """Any other word of SSL-Client-Verify is verify_failed."""
    assert reason(site("verified"), alice, verify=verify) is Reason.VERIFY_FAILED


def test_success_without_a_certificate_is_no_certificate() -> None:
    """A missing SSL-Client-Cert header is denied."""
    assert reason(site("verified"), None, verify="SUCCESS") is Reason.NO_CERTIFICATE


def test_garbage_is_malformed() -> None:
    """Garbage in SSL-Client-Cert is 401 malformed_certificate."""
    decision = ask(site("verified"), b"garbage")
    assert (decision.reason, decision.status) == (Reason.MALFORMED_CERTIFICATE, 401)


def test_validity_is_asked_on_every_request() -> None:
    """Both ends of the period are checked, independent of nginx's result."""
    leaf = staff.issue("a", not_before=now() - dt.timedelta(1), not_after=now() + dt.timedelta(1))
    start, end = (
        moment.timestamp()
        for moment in (leaf.cert.not_valid_before_utc, leaf.cert.not_valid_after_utc)
    )
    rules = site("verified")
    assert reason(rules, leaf, at=start - 1) is Reason.NOT_YET_VALID
    assert reason(rules, leaf, at=start) is Reason.ALLOWED
    assert reason(rules, leaf, at=end) is Reason.ALLOWED
    assert reason(rules, leaf, at=end + 1) is Reason.EXPIRED
    assert ask(rules, leaf, at=start).expires == end + 1
    assert ask(rules, leaf, at=start - 5).expires == start


def test_the_same_name_under_another_authority_is_a_stranger() -> None:
    """alice of Partners is a different client than alice of Staff."""
    rules = trusting("trust: [staff], allow: [{cn: alice}]")
    assert reason(rules, alice) is Reason.ALLOWED
    assert reason(rules, eve) is Reason.UNTRUSTED_ISSUER


def test_a_namesake_authority_with_another_key_is_no_anchor() -> None:
    """The issuer is identified by its signature, not only by its name."""
    impostor = CA("Staff").issue("alice")
    assert reason(trusting("allow: verified"), impostor) is Reason.UNTRUSTED_ISSUER


def test_intermediates_come_from_the_policy() -> None:
    """A leaf below an intermediate is trusted only where the policy has that intermediate."""
    issuing = staff.intermediate("Issuing")
    leaf = issuing.issue("carol")
    without = trusting("allow: verified")
    trust = "trust:\n  staff: {ca: staff.crt, intermediates: [issuing.crt]}\n"
    within = trusting("allow: verified", trust, issuing_crt=issuing.pem)
    assert reason(without, leaf) is Reason.UNTRUSTED_ISSUER
    assert reason(within, leaf) is Reason.ALLOWED


def test_a_leaf_can_not_issue() -> None:
    """A certificate signed by a client's key is untrusted, even if the client is listed in `ca`."""
    rogue = CA("x", issuer=None)
    rogue.key = alice.private  # the attack: alice signs a certificate
    forged = x509.load_der_x509_certificate(alice.der)
    child = rogue.issue("root")
    trust = "trust:\n  staff: {ca: staff.crt, intermediates: [alice.crt]}\n"
    rules = trusting("allow: verified", trust, alice_crt=alice.pem)
    assert forged.subject is not None
    assert reason(rules, child) is Reason.UNTRUSTED_ISSUER


def test_an_intermediate_counts_only_while_it_is_valid() -> None:
    """An expired authority between leaf and anchor breaks the path."""
    issuing = staff.intermediate("Issuing")
    leaf = issuing.issue("carol", not_after=now() + dt.timedelta(days=20000))
    trust = "trust:\n  staff: {ca: staff.crt, intermediates: [issuing.crt]}\n"
    rules = trusting("allow: verified", trust, issuing_crt=issuing.pem)
    after = issuing.cert.not_valid_after_utc.timestamp() + 10
    assert reason(rules, leaf, at=after) is Reason.UNTRUSTED_ISSUER


def test_the_sidecar_verifies_where_nginx_forgave() -> None:
    """verify: sidecar accepts FAILED:… and verifies the chain itself; verify: nginx doesn't."""
    issuing = staff.intermediate("Issuing")
    leaf = issuing.issue("carol")
    trust = "trust:\n  staff: {ca: staff.crt, intermediates: [i.crt], verify: %s}\n"
    failed = "FAILED:unable to get local issuer certificate"
    own = trusting("allow: verified", trust % "sidecar", i_crt=issuing.pem)
    nginx = trusting("allow: verified", trust % "nginx", i_crt=issuing.pem)
    assert reason(own, leaf, verify=failed) is Reason.ALLOWED
    assert reason(nginx, leaf, verify=failed) is Reason.VERIFY_FAILED
    stranger = CA("Staff").issue("carol")
    assert reason(own, stranger, verify=failed) is Reason.UNTRUSTED_ISSUER
    server = issuing.issue("carol", eku=[SERVER_AUTH])
    assert reason(own, server, verify=failed) is Reason.UNTRUSTED_ISSUER


def test_forgiveness_reaches_only_the_trusts_that_verify() -> None:
    """With both kinds of trusts, FAILED is never accepted by a trust that relies on nginx."""
    trust = (
        "trust:\n  staff: {ca: staff.crt, verify: nginx}\n"
        "  partners: {ca: partners.crt, verify: sidecar}\n"
    )
    rules = trusting("allow: verified", trust)
    assert reason(rules, alice, verify="FAILED:x") is Reason.UNTRUSTED_ISSUER
    assert reason(rules, eve, verify="FAILED:x") is Reason.ALLOWED
    assert reason(rules, alice) is Reason.ALLOWED


def test_a_denylist_denies_by_serial_certificate_and_key() -> None:
    """Each kind of entry denies until its end."""
    trust = "trust:\n  staff: {ca: staff.crt, denylist: deny.txt}\n"
    for entry in (
        f"serial {alice.serial:x}",
        f"sha256 {alice.sha256}",
        f"spki_sha256 {alice.spki_sha256}",
    ):
        rules = trusting("allow: verified", trust, deny_txt=f"{entry} # stolen\n".encode())
        decision = ask(rules, alice)
        assert (decision.reason, decision.status) == (Reason.REVOKED, 403)
        assert "stolen" in decision.detail
        assert reason(rules, bob) is Reason.ALLOWED


@pytest.mark.parametrize("hours", [0, 23, 25, -25])
@pytest.mark.parametrize("order", ["old, new", "new, old"])
@pytest.mark.parametrize("chain", ["leaf", "all"])
def test_a_trust_whose_root_has_ended_revokes_on(hours: int, order: str, chain: str) -> None:
    """Two roots have certified the issuing CA, as in a migration, and one trust alone has lists:
    once its root has ended, or before it begins, the other one's path lets nobody in again."""
    start = now()
    day, year = dt.timedelta(days=1), dt.timedelta(days=365)
    old = CA("Old", not_before=start - day, not_after=start + day)
    new = CA("New", not_before=start - year)
    below_old = CA("Issuing", issuer=old, not_before=start - day, not_after=start + day)
    below_new = CA("Issuing", issuer=new, key=below_old.key, not_before=start - year)
    listed, denied, stays = (
        below_new.issue(name, not_before=start - year, not_after=start + year, serial=serial)
        for name, serial in (("listed", 7), ("denied", 8), ("stays", 9))
    )
    rules = policy(
        f"""\
version: 1
trust:
  old:
    ca: old.crt
    intermediates: below.old
    crl: [a.crl]
    denylist: d.txt
    revocation: best_effort
    chain: {chain}
  new: {{ca: new.crt, intermediates: below.new}}
locations:
  - {{name: site, trust: [{order}], allow: verified}}
""",
        old_crt=old.pem,
        new_crt=new.pem,
        below_old=below_old.pem,
        below_new=below_new.pem,
        a_crl=below_old.crl([listed]),
        d_txt=(f"sha256 {denied.sha256}\n" if chain == "leaf" else "serial 08\n").encode(),
    )
    at = (start + dt.timedelta(hours=hours)).timestamp()
    assert ask(rules, listed, at=at).reason is Reason.REVOKED
    assert ask(rules, denied, at=at).reason is Reason.REVOKED
    assert ask(rules, stays, at=at).reason is Reason.ALLOWED


def test_a_trust_that_does_not_know_the_issuer_costs_next_to_nothing() -> None:
    """A location may have hundreds: what is asked of each is whether it has the issuer's name."""

    def rules(count: int) -> Policy:
        files = {f"t{n}_crt": CA(f"Other {n}").pem for n in range(count)}
        trusts = "".join(f"  t{n}: {{ca: t{n}.crt}}\n" for n in range(count))
        text = f"version: 1\n{TRUST}{trusts}locations: [{{name: site, allow: verified}}]\n"
        return policy(text, **FILES, **files)

    few, many = rules(1), rules(21)
    for each in (few, many):
        assert ask(each, bob).allowed
    assert calls(lambda: ask(many, bob)) - calls(lambda: ask(few, bob)) < 20 * 30


def test_a_serial_number_denies_in_its_own_trust_alone() -> None:
    """Another authority's client may have the same one."""
    other, own = (ca.issue("dave", serial=10) for ca in (partners, staff))
    text = "version: 1\n" + TRUST.replace("staff.crt}", "staff.crt, denylist: d.txt}")
    rules = policy(
        text + "locations: [{name: site, allow: verified}]\n", d_txt=b"serial 0A\n", **FILES
    )
    assert ask(rules, own).reason is Reason.REVOKED
    assert ask(rules, other).allowed


@pytest.mark.parametrize("trusts", ["staff, partners", "partners, staff"])
def test_an_ocsp_answer_of_a_trust_without_a_path_revokes(trusts: str) -> None:
    """It is known; nobody is asked anew, and without one the certificate is let in."""
    start, day = now(), dt.timedelta(days=1)
    ended = CA("Staff", key=staff.key, not_before=start - 9 * day, not_after=start - day)
    text = "version: 1\n" + TRUST.replace("staff.crt}", "staff.crt, ocsp: http://x/}")
    rules = policy(
        text + f"locations: [{{name: site, trust: [{trusts}], allow: verified}}]\n",
        staff_crt=ended.pem,
        partners_crt=staff.pem,
    )
    key = ocsp_key(from_der(bob.der), from_der(staff.der), 300, "http://x/")
    answer = OcspAnswer(RevocationStatus.REVOKED, "revoked")
    questions: list[Any] = []
    assert evaluate(rules, request(bob), NOW, {key: answer}, questions=questions).reason is (
        Reason.REVOKED
    )
    assert evaluate(rules, request(bob), NOW, questions=questions).allowed
    assert questions == []


@pytest.mark.parametrize(
    "ca", ["ca: [staff.crt, bob.crt]", "ca: bob.crt, intermediates: staff.crt"]
)
def test_a_pinned_certificate_is_revoked_by_the_ocsp_of_its_issuer(ca: str) -> None:
    """It is its own anchor; who is asked about it, and can answer, is its issuer's responder."""
    trust = f"trust: {{staff: {{{ca}, ocsp: http://x/, revocation: best_effort}}}}\n"
    rules = trusting("allow: verified", trust, bob_crt=bob.pem)
    questions: list[Any] = []
    assert evaluate(rules, request(bob), NOW, questions=questions).allowed
    assert [each.issuer.cn for each in questions] == [("Staff",)]
    answers = {questions[0].key: OcspAnswer(RevocationStatus.REVOKED, "revoked")}
    assert evaluate(rules, request(bob), NOW, answers).reason is Reason.REVOKED


@pytest.mark.parametrize("line", ["serial 0B", "sha256 {0}", ""])
def test_a_pinned_certificate_stays_revoked_when_its_issuers_trust_has_ended(line: str) -> None:
    """The trust that has its issuer, and no valid path to it, revokes on: by its denylist, by a
    line about the issuer, by its CRL."""
    start, day = now(), dt.timedelta(days=1)
    ended = CA("Staff", key=staff.key, not_before=start - 9 * day, not_after=start - day)
    eve = staff.issue("eve", serial=11)
    rules = policy(
        "version: 1\ntrust:\n  pinned: {ca: eve.crt}\n  staff: {ca: staff.crt, crl: crl.pem,"
        " denylist: d.txt}\nlocations: [{name: site, allow: verified}]\n",
        staff_crt=ended.pem,
        eve_crt=eve.pem,
        crl_pem=staff.crl([] if line else [eve]),
        d_txt=line.format(ended.sha256).encode(),
    )
    assert reason(rules, eve) is Reason.REVOKED


def test_a_pinned_certificate_is_revoked_with_its_issuer() -> None:
    """By `chain: all`, and the CRL of who certified that issuer."""
    issuing = staff.intermediate()
    carol = issuing.issue("carol")
    trust = "trust: {staff: {ca: [staff.crt, carol.crt], intermediates: issuing.crt, crl: crl.pem, "
    rules = trusting(
        "allow: verified",
        trust + "chain: all, revocation: best_effort}}\n",
        issuing_crt=issuing.pem,
        carol_crt=carol.pem,
        crl_pem=staff.crl([issuing]),
    )
    assert reason(rules, carol) is Reason.REVOKED


def test_a_crl_revokes_and_its_absence_is_unknown() -> None:
    """A fresh CRL says good or revoked; without one, `required` denies."""
    trust = "trust:\n  staff: {ca: staff.crt, crl: [crl.pem]}\n"
    rules = trusting("allow: verified", trust, crl_pem=staff.crl([alice]))
    assert reason(rules, alice) is Reason.REVOKED
    assert reason(rules, bob) is Reason.ALLOWED
    late = NOW + 10 * 86400
    assert reason(rules, bob, at=late) is Reason.REVOCATION_UNKNOWN
    assert reason(rules, alice, at=late) is Reason.REVOKED
    lenient = trust.replace("]}", "], revocation: best_effort}")
    rules = trusting("allow: verified", lenient, crl_pem=staff.crl([alice]))
    assert reason(rules, bob, at=late) is Reason.ALLOWED
    assert reason(rules, alice, at=late) is Reason.REVOKED


def test_the_host_must_be_covered_where_asked() -> None:
    """san_matches_host compares the SAN, never the CN; sni_matches_host compares the SNI."""
    rules = trusting("allow: verified, san_matches_host: true, sni_matches_host: true")
    ok = {"host": "app.example.com", "server_name": "app.example.com"}
    assert reason(rules, alice, **ok) is Reason.ALLOWED
    assert reason(rules, bob, **ok) is Reason.HOST_MISMATCH
    assert reason(rules, alice, host="other.example.com") is Reason.HOST_MISMATCH
    assert reason(rules, alice, host="app.example.com") is Reason.SNI_MISMATCH
    assert reason(rules, alice, host="") is Reason.HOST_MISMATCH
    by_cn = staff.issue("app.example.com")
    assert reason(rules, by_cn, **ok) is Reason.HOST_MISMATCH


def test_public_comes_before_any_certificate() -> None:
    """allow: public and public_methods need no certificate."""
    assert reason(site("public"), b"garbage") is Reason.PUBLIC
    rules = site("verified", "    public_methods: [OPTIONS]\n")
    assert reason(rules, method="OPTIONS") is Reason.PUBLIC
    assert reason(rules, method="GET") is Reason.NO_CERTIFICATE
    assert reason(rules, method="options") is Reason.NO_CERTIFICATE


def test_monitor_mode_allows_and_says_what_it_would_have_done() -> None:
    """mode: monitor always allows, with the reason that enforcing would have."""
    rules = site("[{cn: nobody}]", "    mode: monitor\n")
    decision = ask(rules, alice)
    assert (decision.allowed, decision.granted, decision.reason) == (
        True,
        False,
        Reason.NOT_ALLOWED,
    )
    assert ask(rules).status == 204


@pytest.mark.parametrize("allow", ["[]", "", "[{cn: nobody}]"])
def test_an_empty_allow_allows_nobody(allow: str) -> None:
    """An empty or missing `allow` denies everybody."""
    assert reason(site(allow), alice) is Reason.NOT_ALLOWED


def test_defaults_fill_in_what_a_location_leaves_out() -> None:
    """A value of defaults applies to every location without its own value."""
    rules = policy(
        "version: 1\ndefaults: {mode: monitor, cache_seconds: 5}\n"
        "locations:\n  - {name: a, allow: []}\n  - {name: b, allow: [], mode: enforce}\n"
    )
    assert ask(rules, alice, "a").allowed
    assert ask(rules, alice, "a").cache_seconds == 5
    assert not ask(rules, alice, "b").allowed


def test_the_trace_has_every_step_in_the_contracts_order() -> None:
    """explain shows the executed steps in order; the last one decides."""
    trace: list[Step] = []
    assert ask(site("verified"), alice, trace=trace).allowed
    assert [step.name for step in trace] == [name for name, _ in STEPS]
    trace = []
    assert not ask(site("verified"), b"x", trace=trace).allowed
    assert [(s.name, s.passed) for s in trace][-1] == ("readable", False)


def test_a_decision_holds_until_the_first_thing_that_could_turn_it() -> None:
    """expires is the earliest of certificate end, until, and the CRL's end."""
    soon = dt.datetime.fromtimestamp(NOW, dt.UTC) + dt.timedelta(hours=1)
    rules = site(f"[{{cn: alice, until: '{soon:%Y-%m-%dT%H:%M:%SZ}'}}]")
    decision = ask(rules, alice)
    assert decision.allowed
    assert abs(decision.expires - soon.timestamp()) < 1
    trust = "trust:\n  staff: {ca: staff.crt, crl: [crl.pem], clock_tolerance: 0}\n"
    end = now() + dt.timedelta(minutes=30)
    rules = trusting("allow: verified", trust, crl_pem=staff.crl(next_update=end))
    at = time.time()
    assert 0 < ask(rules, alice, at=at).expires - at <= 1801


def test_no_decision_without_a_policy_location_by_uri() -> None:
    """A host and URI without a location give unknown_location."""
    rules = policy(
        "version: 1\nlocations:\n"
        "  - {name: admin, location: /admin/, allow: verified, server_name: app.example.com}\n"
    )

    def there(host: str, uri: str) -> Decision:
        return ask(rules, alice, None, host=host, uri=uri)

    assert there("app.example.com", "/admin/x").location == "admin"
    assert there("app.example.com", "/adm%69n/../admin/").allowed
    assert there("app.example.com", "/admin/../x").reason is Reason.UNKNOWN_LOCATION
    assert there("other.example.com", "/admin/x").reason is Reason.UNKNOWN_LOCATION
    assert there("app.example.com", "").reason is Reason.UNKNOWN_LOCATION


# -- OCSP answers and a clock that goes back


@pytest.mark.parametrize(
    ("status", "since", "until", "reason"),
    [
        (RevocationStatus.GOOD, -10.0, 10.0, Reason.ALLOWED),
        (RevocationStatus.GOOD, 1.0, 10.0, Reason.REVOCATION_UNKNOWN),
        (RevocationStatus.GOOD, -10.0, 0.0, Reason.REVOCATION_UNKNOWN),
        (RevocationStatus.REVOKED, 1.0, 10.0, Reason.REVOKED),
        (RevocationStatus.REVOKED, -10.0, 0.0, Reason.REVOKED),
    ],
)
def test_an_ocsp_answer_is_good_only_between_its_times(
    status: RevocationStatus, since: float, until: float, reason: Reason
) -> None:
    """Outside its period, `good` is ignored and `revoked` still revokes."""
    ca = CA("Staff")
    leaf = ca.issue("alice")
    text = (
        'version: 1\ntrust: {staff: {ca: ca.crt, ocsp: "http://r/"}}\n'
        "locations: [{name: site, allow: verified}]\n"
    )
    rules = policy(text, ca_crt=ca.pem)
    staff = rules.trusts["staff"]
    key = ocsp_key(from_der(leaf.der), from_der(ca.der), staff.clock_tolerance, staff.ocsp)
    answer = OcspAnswer(status, until=NOW + until, since=NOW + since)
    decision = evaluate(rules, request(leaf), NOW, {key: answer})
    assert decision.reason is reason

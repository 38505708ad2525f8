"""Each module has its unit test, or says here where it is tested instead.

tests/unit/a/test_x.py belongs to sidecar/a/x.py (test_architecture.py checks the other direction).
The list of exceptions only shrinks: an entry whose unit test exists is a mistake.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ROOMS = {
    "authorizer/status_page": "unit/authorizer/status_page",
    "authorizer/telemetry": "unit/authorizer/telemetry",
    "commands/diff": "unit/commands/diff",
    "commands/doctor": "unit/commands/doctor",
    "core/fleet": "unit/core/fleet",
    "enroll": "process/test_enroll.py",
    "fleet": "process/test_fleet.py",
}
"""Folders whose modules are tested together, and where."""

ELSEWHERE = {
    "authorizer/client_store.py": "process/test_client_store.py",
    "authorizer/daemon_status.py": "process/test_prometheus.py",
    "authorizer/fleet_follower.py": "attack/test_fleet.py",
    "authorizer/fleet_importing.py": "attack/test_fleet.py",
    "authorizer/fleet_memory.py": "attack/test_fleet.py",
    "authorizer/fleet_release.py": "attack/test_fleet.py",
    "authorizer/fleet_status.py": "process/test_fleet.py",
    "authorizer/service.py": "process/test_authorizer.py",
    "commands/revoke/arguments.py": "process/test_revoke.py",
    "commands/revoke/command.py": "process/test_revoke.py",
    "commands/revoke/named_clients.py": "process/test_enroll_clients.py",
    "commands/who_shadow.py": "process/test_clients_seen_by_commands.py",
    "fetcher/service.py": "process/test_fetcher.py",
    "runtime/fleet_places.py": "process/test_fleet.py",
    "runtime/fleet_state.py": "process/test_fleet.py",
    "runtime/page_templates.py": "browser/test_status_page.py",
    "runtime/seen_clients_file.py": "process/test_client_store.py",
    "runtime/standard_streams.py": "process/test_cli.py",
    "core/config/schema.py": "unit/core/policy/test_spec.py",
    "core/config/yaml_tree.py": "unit/core/policy/test_spec.py",
    "core/nginx/atomic_groups.py": "unit/core/nginx/test_regex.py",
    "core/nginx/host.py": "unit/core/nginx/test_locations.py",
    "core/nginx/pcre_classes.py": "unit/core/nginx/test_regex.py",
    "core/nginx/pcre_parser.py": "unit/core/nginx/test_regex.py",
    "core/nginx/regex_tree.py": "unit/core/nginx/test_regex.py",
    "core/nginx/selector_error.py": "unit/core/nginx/test_locations.py",
    "core/policy/cases.py": "unit/core/test_policy_tests.py",
    "core/policy/dn_warnings.py": "unit/core/policy/test_policy_warnings.py",
    "core/policy/lockouts.py": "unit/core/policy/test_policy_warnings.py",
    "core/policy/address_patterns.py": "unit/core/policy/test_patterns.py",
    "core/policy/matching.py": "unit/core/policy/test_patterns.py",
    "core/policy/name_patterns.py": "unit/core/policy/test_identity_spellings.py",
    "core/policy/text_patterns.py": "unit/core/policy/test_patterns.py",
    "core/policy/model.py": "unit/core/policy/test_compile.py",
    "core/policy/trust.py": "unit/core/policy/test_policy_warnings.py",
    "core/revocation/crl/entries.py": "unit/core/revocation/crl/test_index.py",
    "core/revocation/crl/entry_extensions.py": "unit/core/revocation/crl/test_index.py",
    "core/revocation/crl/fields.py": "unit/core/revocation/crl/test_index.py",
    "core/revocation/crl/parse.py": "unit/core/revocation/crl/test_index.py",
    "core/revocation/crl/points.py": "unit/core/revocation/crl/test_index.py",
    "core/revocation/crl/scope.py": "unit/core/revocation/crl/test_index.py",
    "core/revocation/crl/signers.py": "unit/core/revocation/crl/test_odd_authorities.py",
    "core/revocation/ocsp/responder.py": "unit/core/revocation/ocsp/test_response.py",
    "core/revocation/status.py": "unit/core/revocation/crl/test_index.py",
    "core/x509/attribute_types.py": "unit/core/x509/test_distinguished_name.py",
    "core/x509/canonical_name.py": "unit/core/x509/test_path_building.py",
    "core/x509/client_purpose.py": "conformance/test_openssl_agreement.py",
    "core/x509/curve_orders.py": "unit/core/x509/test_equivalent_fingerprints.py",
    "core/x509/der.py": "unit/core/x509/test_unsigned_octets.py",
    "core/x509/extension_values.py": "conformance/test_openssl_agreement.py",
    "core/x509/name_constraints.py": "conformance/test_openssl_agreement.py",
    "cli.py": "process/test_cli.py",
    "cli_fleet.py": "process/test_fleet.py",
}
"""Modules without a unit test of their own, and the test that drives them."""


def _unit_test(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests" / "unit" / path.parent / f"test_{path.name}"


def _lacking() -> set[str]:
    """The modules that have neither a unit test nor a room that is tested together."""
    found = set()
    for path in (ROOT / "sidecar").rglob("*.py"):
        module = str(path.relative_to(ROOT / "sidecar"))
        room = any(module.startswith(f"{each}/") for each in ROOMS)
        if not path.stem.startswith("__") and not room and not _unit_test(module).exists():
            found.add(module)
    return found


def test_each_module_has_a_unit_test_or_says_where_it_is_tested() -> None:
    """The test of a function is where its path says; the exceptions are listed, and only shrink."""
    assert _lacking() == set(ELSEWHERE)


def test_each_other_place_is_there() -> None:
    """A place that was renamed or removed is told."""
    places = {*ROOMS.values(), *ELSEWHERE.values()}
    assert not [each for each in sorted(places) if not (ROOT / "tests" / each).exists()]

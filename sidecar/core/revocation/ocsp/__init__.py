"""Build OCSP requests and verify OCSP responses (RFC 6960)."""

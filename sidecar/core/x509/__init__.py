"""Certificates: read them, check signatures, build paths (RFC 5280)."""

"""Revocation status: denylists, CRLs, OCSP."""

"""Determine the revocation status of certificates by denylists, CRLs and OCSP."""

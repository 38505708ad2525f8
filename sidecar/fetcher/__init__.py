"""The service that downloads CRLs and asks OCSP responders for the authorizer."""

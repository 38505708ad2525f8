"""`mtls-sidecar doctor`: find faults in an nginx configuration."""

"""`mtls-sidecar enroll`: issue client certificates by invitation, as a process of its own."""

"""`revoke`: deny a certificate, a key or a serial number from now on, and confirm it."""

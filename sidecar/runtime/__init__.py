"""Operating-system services for all processes: sockets, systemd, files, worker processes."""

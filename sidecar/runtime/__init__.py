"""Operating-system services that both processes use: sockets, systemd, files, worker processes."""

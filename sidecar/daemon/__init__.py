"""Everything that touches the world: sockets, files, clocks, the service manager."""

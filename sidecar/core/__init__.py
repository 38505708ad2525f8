"""The pure core that decides: no event loop, files, sockets or clock (`now` is an argument)."""

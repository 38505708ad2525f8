"""The decision, pure: no event loop, no files, no sockets, no clock (`now` is an argument)."""

"""Treat a host and a URI exactly as nginx does."""

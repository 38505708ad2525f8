"""Interpret hosts, URIs and locations exactly as nginx does."""

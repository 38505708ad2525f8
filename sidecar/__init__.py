"""mtls-sidecar: says who may go where, for an nginx that asks for client certificates."""

__version__ = "0.1.0"

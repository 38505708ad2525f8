"""The commands beside the two services."""

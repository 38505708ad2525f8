"""Read and validate YAML files."""

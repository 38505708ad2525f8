"""What an administrator types: each command a thin file over the core."""

"""The daemon that answers nginx's questions: connections, decisions, caches, policy reloads."""

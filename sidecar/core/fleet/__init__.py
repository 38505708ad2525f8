"""The fleet's signed log: what an entry is, and when it counts.  Shared by all processes."""

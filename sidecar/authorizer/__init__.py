"""The daemon that nginx asks: one connection, one decision, one answer at a time."""

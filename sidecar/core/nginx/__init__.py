"""What nginx does with a host and a URI, done the same way here."""

"""The policy: its YAML form, its rules, and its compiled form."""

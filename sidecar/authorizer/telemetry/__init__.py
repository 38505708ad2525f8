"""What is recorded of decisions: metrics, and the decision log."""

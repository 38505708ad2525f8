"""`diff`: say what a change of the policy means: who gains access and who loses it."""

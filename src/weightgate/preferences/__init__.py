"""Preference data: what the votes teach, what is wrong with them, and what two sets of votes teach differently."""

"""Compare two recordings: what changed, how surely, which stage moved, and which prompts show it."""

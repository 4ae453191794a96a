"""What is asked (suites), who answers (targets), what it shows (scorers, measure)."""

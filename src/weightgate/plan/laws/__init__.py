"""Published scaling laws: small pure functions and records of constants, each with where they come from."""

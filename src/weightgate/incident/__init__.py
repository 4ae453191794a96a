"""The built-in world: a seeded generator of a small closed world whose truth is known on every axis."""

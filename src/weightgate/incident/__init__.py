"""The built-in world: a seeded generator of a small closed world whose truth is known on every axis."""

from weightgate.incident.knobs import Knobs
from weightgate.incident.world import World, generate

__all__ = ["Knobs", "World", "generate"]

"""An OpenAI-compatible endpoint over anything that generates: `create_app` makes it, `serve` runs it."""

from weightgate.serve.app import Options, create_app, serve
from weightgate.serve.catalog import Alias, Aliases, Catalog, Fixed, Served, write_aliases
from weightgate.serve.checkpoints import follow, generator_loader, generator_of, serve_aliases, serve_generator
from weightgate.serve.manner import Manner

__all__ = [
    "Alias",
    "Aliases",
    "Catalog",
    "Fixed",
    "Manner",
    "Options",
    "Served",
    "create_app",
    "follow",
    "generator_loader",
    "generator_of",
    "serve",
    "serve_aliases",
    "serve_generator",
    "write_aliases",
]

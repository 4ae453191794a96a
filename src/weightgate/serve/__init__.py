"""An OpenAI-compatible endpoint over anything that generates: `create_app` makes it, `serve` runs it."""

from weightgate.serve.app import Options, create_app, serve
from weightgate.serve.catalog import Aliases, Catalog, Fixed, Served, write_aliases
from weightgate.serve.checkpoints import follow, generator_loader, generator_of, serve_generator

__all__ = [
    "Aliases",
    "Catalog",
    "Fixed",
    "Options",
    "Served",
    "create_app",
    "follow",
    "generator_loader",
    "generator_of",
    "serve",
    "serve_generator",
    "write_aliases",
]

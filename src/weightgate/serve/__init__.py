"""An OpenAI-compatible endpoint over anything that generates: `create_app` makes it, `serve` runs it."""

from weightgate.serve.app import Options, create_app, serve
from weightgate.serve.catalog import Aliases, Catalog, Fixed, Served, write_aliases

__all__ = ["Aliases", "Catalog", "Fixed", "Options", "Served", "create_app", "serve", "write_aliases"]

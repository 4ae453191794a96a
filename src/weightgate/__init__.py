"""A build system for the weights of language models."""

__version__ = "0.1.0"

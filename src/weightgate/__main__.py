"""`python -m weightgate`, which is how `torchrun` and `accelerate launch` start it."""

from weightgate.cli import main

main()

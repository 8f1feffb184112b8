"""``python -m lookalike`` is ``lookalike``."""

from lookalike.cli import main

main()

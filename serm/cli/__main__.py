"""python -m serm.cli: the same as `serm`."""

from serm.cli import main

main()

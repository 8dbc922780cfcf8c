"""`python -m trtdet`."""

from trtdet.cli import main

main()

"""`python -m ptychow`: the same as `ptychow`."""

from ptychow.cli import main

main()

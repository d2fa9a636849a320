"""`python -m jepa_lab` is `jepa-lab`."""

from jepa_lab.cli import main

main()

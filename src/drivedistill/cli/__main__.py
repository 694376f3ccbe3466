"""`python -m drivedistill.cli`, for `torchrun -m`."""

from drivedistill.cli import main

main()

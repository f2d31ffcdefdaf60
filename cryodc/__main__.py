"""``python -m cryodc``, and so ``torchrun -m cryodc``: the command line."""

import runpy
import sys

if __name__ == "__main__":
    # The command as it would be typed, which is kept for whoever goes on.
    sys.argv[0] = "cryodc"
    runpy.run_module("cryodc_cli.main", run_name="__main__")

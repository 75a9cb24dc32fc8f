"""``python -m noiserobust``."""

import sys

from noiserobust.cli import main

if __name__ == "__main__":
    sys.exit(main())

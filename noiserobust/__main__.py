"""``python -m noiserobust``."""

import sys

from noiserobust.cli import main

sys.exit(main())

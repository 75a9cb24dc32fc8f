"""``python -m noiserobust``, and the command ``noiserobust``."""

import signal
import sys

from noiserobust.endings import Ended, endings


def main() -> int:
    """Run the command line; a signal may ask for the end while it is still being imported, and when all is done."""
    try:
        with endings():
            from noiserobust.cli import main as run

            return run()
    except Ended as end:
        print(f"noiserobust: {end.said}", file=sys.stderr)
        return end.status
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())

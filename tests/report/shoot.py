"""Pictures of a report to look at: ``python tests/report/shoot.py REPORT.html OUTDIR``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from browser import Opened, browser, missing

TALLEST = 4000  # pixels of a picture; a longer page has several
LOOKS = {
    "wide": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844, "scale": 2},
    "dark": {"width": 1280, "height": 800, "color_scheme": "dark"},
}


def main(report: Path, out: Path) -> None:
    if reason := missing():
        sys.exit(reason)
    out.mkdir(parents=True, exist_ok=True)
    with browser() as open_page:
        for name, look in LOOKS.items():
            for old in (out / f"{name}.png", *out.glob(f"{name}-*.png")):
                old.unlink(missing_ok=True)
            with open_page(report, **look) as opened:
                shoot(opened, out / f"{name}.png", TALLEST // look.get("scale", 1))
                for problem in (*opened.errors, *opened.requests):
                    print(f"{name}: {problem}", file=sys.stderr)
        with open_page(report, media="print") as opened:
            opened.page.pdf(path=out / "print.pdf", format="A4", print_background=True)
    if shutil.which("pdftoppm"):
        for old in out.glob("print-*.png"):
            old.unlink()
        subprocess.run(["pdftoppm", "-png", "-r", "80", out / "print.pdf", out / "print"], check=True)
    print(*sorted(str(path) for path in out.iterdir()), sep="\n")


def shoot(opened: Opened, path: Path, tallest: int) -> None:
    """Write the whole page: ``wide.png``, and ``wide-2.png`` and so on where it is too tall for one."""
    width, height = opened.page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
    for number, top in enumerate(range(0, height, tallest), start=1):
        clip = {"x": 0, "y": top, "width": width, "height": min(tallest, height - top)}
        part = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        opened.page.screenshot(path=part, full_page=True, clip=clip)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

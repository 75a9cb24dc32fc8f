"""A page in Debian's Chromium: what it shows, what goes wrong in it, and what it would load."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class Opened:
    """A page that is open.

    Attributes:
        page: Playwright's.
        errors: what its console and its scripts have complained of.
        requests: addresses, other than its own, that it asked for; none was given anything.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class OpenPage(Protocol):
    """Opens a file as a person does who double-clicks it, in a browser without network."""

    def __call__(
        self,
        path: Path,
        *,
        width: int = 1280,
        height: int = 800,
        scale: float = 1,
        color_scheme: Literal["light", "dark"] = "light",
        media: Literal["screen", "print"] = "screen",
        javascript: bool = True,
    ) -> AbstractContextManager[Opened]:
        """Return a context in which the page is open; sizes are in CSS pixels, of which each has ``scale`` a side."""
        ...


def missing() -> str | None:
    """Return why no page can be opened here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: pip install -e '.[dev]'"
    return None if shutil.which("chromium") else "there is no `chromium`: apt-get install chromium"


@contextmanager
def browser() -> Iterator[OpenPage]:
    """Start Chromium with a profile of its own; yield the function that opens pages.

    Until it is closed this thread has a running event loop: ``asyncio.run`` and another ``browser()`` would fail.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        try:
            yield _opener(started)
        finally:
            started.close()


def _opener(started: Browser) -> OpenPage:
    @contextmanager
    def open_page(
        path: Path,
        *,
        width: int = 1280,
        height: int = 800,
        scale: float = 1,
        color_scheme: Literal["light", "dark"] = "light",
        media: Literal["screen", "print"] = "screen",
        javascript: bool = True,
    ) -> Iterator[Opened]:
        own = path.resolve().as_uri()
        context = started.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=scale,
            color_scheme=color_scheme,
            java_script_enabled=javascript,
            offline=True,
        )
        try:
            opened = Opened(context.new_page())

            def answer(route: Route) -> None:
                if route.request.url.partition("#")[0] == own:
                    route.continue_()
                else:
                    opened.requests.append(route.request.url)
                    route.abort()

            page = opened.page
            context.route("**/*", answer)
            page.on("websocket", lambda socket: opened.requests.append(socket.url))
            page.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: opened.errors.append(str(error)))
            page.emulate_media(media=media)
            page.goto(own, wait_until="networkidle")
            yield opened
        finally:
            context.close()

    return open_page

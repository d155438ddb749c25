"""A real browser, as far as tests need one: how pages lie where there is little room, and what they load."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MEASURE = """
onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement;
    const ends = [...page.querySelectorAll("body *")].map(each => [each.getBoundingClientRect().right, each.outerHTML]);
    const [right, widest] = ends.reduce((a, b) => (b[0] > a[0] ? b : a));
    found[frame.id] = {
      width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight, right, widest: widest.slice(0, 300),
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(each => each.name),
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
};
"""


def command() -> str:
    """The browser's command, or that in CHROME. Without one a test is skipped, but fails where CI is set."""
    given = os.environ.get("CHROME")
    found = shutil.which(given) if given else next(filter(None, map(shutil.which, COMMANDS)), None)
    if found is None:
        missing = f"no browser: none of {', '.join([given] if given else COMMANDS)} is there; set CHROME to one"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return found


def laid_out(pages: Mapping[str, str], folder: Path, width: int = 390) -> dict[str, Any]:
    """Every page in a frame ``width`` pixels wide, in one start of the browser.

    Returns:
        by page ``width`` and ``scroll``, the widths of the frame and of what there is to scroll over; ``right`` and
        ``widest``, where the element that reaches farthest ends and what it is; ``height``; ``loaded``: addresses.
    """
    frames = "".join(
        f'<iframe id="{name}" width="{width}" height="800" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
        for name, page in pages.items()
    )
    file = folder / "frames.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><script>{MEASURE}</script>{frames}<pre id="found"></pre>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    done = subprocess.run(
        [command(), *options, f"--user-data-dir={folder / 'browser'}", "--dump-dom", file.as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured

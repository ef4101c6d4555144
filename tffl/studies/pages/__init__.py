"""The pages of `results/` that are not about one paper's tables, one module for each page.

    runs/<page>/  →  results/<page>/*.csv, *.json  →  README.md and figures

`builder` does what all of them share; `verdicts` judges their claims, and those of `reproduce`.
"""

from __future__ import annotations

from importlib import import_module

from tffl.core.errors import unknown
from tffl.studies.pages.builder import Page

PAGES = {
    "opponents": "attacks against defenses",
    "coalition": "colluders who are not clones, against shield",
    "heat_maps": "heat-map detectors",
    "bias_anomaly": "Bilgin's bias anomaly",
    "gan_audit": "the GAN auditor",
    "flower": "defenses in a Flower server",
    "reliability": "hostile input and broken runs",
    "speed": "how fast tffl is",
}
"""Name of a page, of its module and of its folder → what it is about."""


def find(name: str) -> Page:
    """Returns a page by name.

    Raises:
      UsageError: There is no such page; the message names those that there are.
    """
    if name not in PAGES:
        raise unknown("page", name, PAGES)
    page: Page = import_module(f"tffl.studies.pages.{name}").PAGE
    return page

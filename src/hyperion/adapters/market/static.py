"""A price feed without a network: the shipped catalogue, and what the user lays over it."""

from pathlib import Path

from hyperion.adapters.market.catalogue import read_catalogue
from hyperion.adapters.market.overlay import OverlayError, lay_over, read_overlay
from hyperion.model.market import MarketView

__all__ = ["OverlayError", "StaticMarket"]


class StaticMarket:
    """Satisfies ``ports.MarketFeed``. Everything is read when it is made, so errors come early.

    ``overlay`` names a TOML or JSON file with more regions and prices (docs/catalogue.md). Raises
    ``OSError`` when a file cannot be read and ``OverlayError`` (a ``ValueError``) when the overlay
    is wrong.
    """

    def __init__(self, overlay: Path | None = None) -> None:
        shipped = read_catalogue()
        self._view = lay_over(shipped, read_overlay(overlay)) if overlay else shipped

    def view(self) -> MarketView:
        """The same picture each time: facts in files do not move."""
        return self._view

"""The frame of every page that a command writes: one file that fetches nothing."""

from html import escape
from pathlib import Path

_HERE = Path(__file__).parent


def document(title: str, header: str, main: str, script: str = "") -> str:
    """``header`` comes below the heading; ``script`` names a file beside this one. Both and
    ``main`` are HTML, the title is text."""
    ends = f"<script>\n{(_HERE / script).read_text(encoding='utf-8')}</script>\n" if script else ""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Hyperion-X: {escape(title)}</title>
<style>
{(_HERE / "report.css").read_text(encoding="utf-8")}</style>
<header>
<h1>{escape(title)}</h1>
{header}
</header>
<main>
{main}
</main>
{ends}</html>
"""

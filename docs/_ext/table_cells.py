"""Text in the cells of Markdown tables."""

from __future__ import annotations


def escaped(text: str) -> str:
    # Braces and brackets of a JSON example are text in Markdown; the pipe would end the cell.
    return text.replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")

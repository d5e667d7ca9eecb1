"""Potstill: distil one job of a strong model into a 270M-parameter Gemma."""

__version__ = "0.1.0"

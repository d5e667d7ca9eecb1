"""Plots as inline SVG: no script, no network, no fixed colours; what they name can be hostile.

Every colour is currentColor or a CSS variable (--series-0 to -7, --line, --mark), so a page's light and dark apply.
The plots are 270 units wide with text of 9, which stays readable on a phone; titles and legends are the page's.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

WIDTH = 270
POINTS_PER_INCH = 72
LABEL_CHARS = 44
INK = "#010101"
DIM = "#010102"
MARK = "#010103"
SERIES = tuple(f"#0201{number:02x}" for number in range(8))


def histogram(name: str, width: int, counts: dict[str, list[int]], mark: int | None, unit: str) -> str:
    """Bars of `width` from 0 on, stacked by split, with a line at `mark` where it is near the bars."""

    def draw(axes: Any) -> None:
        bars = max((len(values) for values in counts.values()), default=0)
        below = [0] * bars
        for color, values in zip(SERIES, counts.values(), strict=False):
            axes.bar([(i + 0.5) * width for i in range(bars)], values, 0.92 * width, bottom=below, color=color)
            below = [a + b for a, b in zip(below, values, strict=True)]
        if mark is not None and mark <= 2 * bars * width:
            axes.axvline(mark, color=MARK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(unit)
        axes.set_ylabel("rows")
        axes.margins(x=0.02)
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.grid(axis="y", color=DIM, linewidth=0.5)

    return _svg(name, 150, draw)


def bars(name: str, labels: Sequence[str], series: dict[str, list[float]], values: Sequence[str]) -> str:
    """A stacked bar for every label, which stands above it, with its `values` text at the right."""

    def draw(axes: Any) -> None:
        left = [0.0] * len(labels)
        places = [-float(number) for number in range(len(labels))]
        for color, lengths in zip(SERIES, series.values(), strict=False):
            axes.barh(places, lengths, 0.34, left=left, color=color)
            left = [a + b for a, b in zip(left, lengths, strict=True)]
        longest = max(left, default=0) or 1
        for place, label, value in zip(places, labels, values, strict=True):
            text = label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "…"
            axes.text(0, place + 0.26, text, va="bottom", ha="left", color=INK)
            axes.text(longest, place + 0.26, value, va="bottom", ha="right", color=INK)
        axes.set_xlim(0, longest)
        axes.set_ylim(places[-1] - 0.25 if places else 0, 0.95)
        axes.axis("off")

    return _svg(name, 12 + 27 * len(labels), draw)


def _svg(name: str, height: float, draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",  # text stays text: small, searchable, and in the reader's font
        "svg.hashsalt": name,  # the same data gives the same bytes
        "text.parse_math": False,  # a label with two dollar signs is no formula
        "font.family": "sans-serif",
        "font.size": 9,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.edgecolor": DIM,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
    }
    out = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's fonts draw the text, not ours
        size = (WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH)
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(name, out.getvalue())


def _inline(name: str, text: str) -> str:
    """The <svg> element with colours of the page, ids of its own, and no address in it."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{re.escape(name)}-", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    colors = {INK: "currentColor", DIM: "var(--line)", MARK: "var(--mark)"}
    colors |= {color: f"var(--series-{number})" for number, color in enumerate(SERIES)}
    for color, own in colors.items():
        text = text.replace(color, own)
    # the figure around it says what it shows
    return re.sub(r'^<svg width="[^"]*" height="[^"]*"', '<svg aria-hidden="true"', text)

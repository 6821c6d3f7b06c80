"""Draw the picture: `python -m benchmarks.chart FILE`, with the panels as JSON in standard input.

It runs in an environment of its own, which has matplotlib.
"""

import json
import sys

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = {
    "to_thread": "#2f81f7",
    "sync": "#1fa37a",
    "async": "#8957e5",
    "plain": "#e08a1e",
    "litellm": "#d1493f",
}
GREY = "#777e87"  # as legible on GitHub's white as on its black: contrast 4.1 and 4.6
TEXT = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
LARGE = 30  # from here on, decimals tell nothing
# Text as text, and no date, so that the same figures give the same file.
mpl.rcParams.update(dict.fromkeys(TEXT, GREY))
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 10})
mpl.rcParams["font.family"] = ["system-ui", "sans-serif"]


def main() -> None:
    panels = json.load(sys.stdin)
    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9.6, 1.9 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)  # inches: another font may be wider
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, panel in zip(grid, panels, strict=False):
        axes.axis("on")
        names, labels, values = zip(*panel["bars"], strict=True)
        bars = axes.barh(labels, values, color=[COLOURS[name] for name in names], height=0.7)
        short = [f"{value:,.{1 if value < LARGE else 0}f}" for value in values]
        axes.bar_label(bars, short, padding=4)
        axes.set_title(panel["title"], loc="left", fontsize=11, fontweight="bold")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.tick_params(length=0, labelbottom=False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(sys.argv[1], transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()

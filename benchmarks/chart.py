"""The picture: bars, drawn by hand so that nothing has to be installed; for light and dark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .apps import App
from .tables import Measured, Value

WIDTH, TOP, BASE = 860, 62, 270  # of the picture, and where bars begin and end
SPACE = 36  # between panels
COLOURS = {
    "to_thread": "#2f81f7",
    "sync": "#1fa37a",
    "async": "#8957e5",
    "plain": "#e08a1e",
    "bare_to_thread": "#b48a5a",
    "bare_def": "#9a9fa6",
    "blocking": "#d1493f",
}
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 13px; }
.value { font-size: 10px; text-anchor: middle; }
.group { text-anchor: middle; }
.line { stroke: #8b949e; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } }"""


@dataclass(frozen=True)
class Bar:
    app: App
    value: float


@dataclass(frozen=True)
class Panel:
    share: int  # of the picture's width
    title: str
    groups: Sequence[tuple[str, Sequence[Bar]]]

    @property
    def units(self) -> int:
        """Its width in bars: those that it has, and one between groups."""
        return sum(len(bars) + 1 for _, bars in self.groups) - 1


def draw(measured: Measured) -> str:
    panels = [panel for panel in _panels(measured) if panel.groups]
    room = (WIDTH - SPACE * (len(panels) + 1)) / max(1, sum(panel.share for panel in panels))
    shapes: list[str] = []
    left = float(SPACE)
    for panel in panels:
        shapes += _panel(panel, left, min(room * panel.share / panel.units, 60))
        left += room * panel.share + SPACE
    apps = {b.app.name: b.app for panel in panels for _, bars in panel.groups for b in bars}
    legend, bottom = _legend(list(apps.values()), BASE + 48)
    body = "\n".join([*shapes, *legend])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}"'
        f' width="{WIDTH}" height="{bottom}" role="img">\n'
        f"<title>Requests and chunks per second, by app</title>\n"
        f"<style>\n{STYLE}\n</style>\n{body}\n</svg>\n"
    )


def _panels(measured: Measured) -> Iterator[Panel]:
    options = measured.options
    yield Panel(
        3,
        f"Requests/s, the upstream takes {options.delay:g} s",
        [
            (f"{load} callers", bars)
            for load in options.callers
            if (bars := _bars(measured, "chat", load, lambda r: r.rate))
        ],
    )
    for scenario, title in (("streams", "Chunks/s, full speed"), ("pace", "Chunks/s, 20 ms apart")):
        loads = {load for _, load in measured.rows(scenario)}
        yield Panel(
            1,
            title,
            [
                (f"{load} streams", _bars(measured, scenario, load, lambda r: r.chunk_rate))
                for load in loads
            ],
        )


def _bars(measured: Measured, scenario: str, load: int, value: Value) -> list[Bar]:
    return [
        Bar(app, measured.median(scenario, app, load, value))
        for app, its_load in measured.rows(scenario)
        if its_load == load and not app.is_upstream
    ]


def _panel(panel: Panel, left: float, unit: float) -> Iterator[str]:
    yield f'<text class="title" x="{left:.1f}" y="26">{escape(panel.title)}</text>'
    highest = max(bar.value for _, bars in panel.groups for bar in bars) or 1
    x = left
    for name, bars in panel.groups:
        for bar in bars:
            height = max(1.0, (BASE - TOP) * bar.value / highest)
            y, width = BASE - height, unit - 3
            yield (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
                f' rx="2" fill="{COLOURS[bar.app.name]}"/>'
            )
            middle = x + width / 2
            yield f'<text class="value" x="{middle:.1f}" y="{y - 4:.1f}">{_short(bar.value)}</text>'
            x += unit
        middle = x - len(bars) * unit / 2
        yield f'<text class="group" x="{middle:.1f}" y="{BASE + 20}">{escape(name)}</text>'
        x += unit
    yield f'<path class="line" d="M{left:.1f} {BASE}.5H{x - unit:.1f}"/>'


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _legend(apps: Sequence[App], top: int) -> tuple[list[str], int]:
    columns = 4
    shapes: list[str] = []
    for index, app in enumerate(apps):
        x = SPACE + index % columns * (WIDTH - SPACE) / columns
        y = top + index // columns * 22
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="12" height="12" rx="2"'
            f' fill="{COLOURS[app.name]}"/>'
            f'<text x="{x + 18:.1f}" y="{y + 10}">{escape(app.label)}</text>'
        )
    return shapes, top + (len(apps) - 1) // columns * 22 + 26

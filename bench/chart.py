"""Draws medians of a benchmark run as SVG: `make pictures`.

    python bench/run.py --only pingpong --json results.json
    python bench/chart.py results.json OUTPUT.svg

Each case in the file is a panel with a scale of its own; a bar is one runtime's median time for an
operation. The versions and the machine are those that the file names.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

NAMES = {"golibx": "golibx", "go-p1": "Go", "gevent": "gevent", "asyncio": "asyncio"}
TITLES = {
    "yield2": "give way to another task",
    "pingpong": "pass a value to another task",
    "spawn": "start a task and join it",
    "select4": "receive from one of four channels",
}
COLOURS = {"golibx": "#2f6fdf"}
OTHER = "#a9b4c2"
UNITS = (("ns", 1.0), ("µs", 1e3), ("ms", 1e6))
WIDTH = 560
STYLE = """
text{font-family:'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;font-size:13px;fill:#24292f}
.t{font-weight:600}
.n{font-size:11px;fill:#57606a}
"""
LABEL = 80
BAR = 300
ROW = 22
GAP = 34
"""Between two panels, with the title of the lower one."""


def duration(ns: float) -> str:
    """Three digits at most: 87 ns, 1.25 µs."""
    unit, size = next((u, n) for u, n in UNITS if ns / n < 999.5 or u == "ms")
    value = ns / size
    return f"{value:.0f} {unit}" if value >= 99.5 or unit == "ns" else f"{value:.3g} {unit}"


def medians(case: dict[str, Any]) -> list[tuple[str, float]]:
    """Each runtime's, in nanoseconds for an operation, as NAMES has them."""
    compared = case["compared"]
    if not compared.startswith("ns"):
        sys.exit(f"{case['title']}: a chart is of ns, not of {compared}")
    found = case["medians"]
    return [(NAMES[key], found[key][compared]) for key in NAMES if key in found]


def text(x: float, y: float, content: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(content)}</text>'


def panel(case: dict[str, Any], title: str, y: float, scale_at: float) -> list[str]:
    """The title and the bars of one case."""
    values = medians(case)
    most = max(value for _, value in values)
    out = [text(scale_at, y, title, 'class="t"')]
    for number, (name, value) in enumerate(values):
        top = y + 10 + number * ROW
        width = max(1.5, BAR * value / most)
        right = scale_at + LABEL + width
        out.append(text(scale_at + LABEL - 8, top + 12, name, 'text-anchor="end"'))
        box = f'x="{scale_at + LABEL}" y="{top}" width="{width:.1f}" height="15"'
        out.append(f'<rect {box} fill="{COLOURS.get(name, OTHER)}"/>')
        out.append(text(right + 6, top + 12, duration(value)))
    return out


def draw(results: dict[str, Any]) -> str:
    """The picture, as SVG that needs nothing from elsewhere."""
    cases = results["cases"]
    shown = [name for name in TITLES if name in cases]
    if not shown:
        sys.exit(f"the results have none of {', '.join(TITLES)}")
    height_of = {name: GAP + len(medians(cases[name])) * ROW for name in shown}
    versions = results["versions"]
    used = [f"{NAMES[key]} {versions[key]}" for key in NAMES if key in versions]
    rounds = results["rounds"]
    notes = [
        f"Time for one operation, medians of {rounds} rounds. Each panel has its own scale.",
        ", ".join(used) + ".",
        f"{results['machine']} at the start. Go has one processor.",
    ]
    out: list[str] = []
    y = 30.0
    for name in shown:
        out += panel(cases[name], TITLES[name], y, 20)
        y += height_of[name]
    out += [text(20, y + 18 * n, note, 'class="n"') for n, note in enumerate(notes)]
    height = y + 18 * len(notes)
    size = f'viewBox="0 0 {WIDTH} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{notes[0]}">'
    style = f"<style>{STYLE}</style>"
    back = f'<rect width="{WIDTH}" height="{height:.0f}" rx="6" fill="#ffffff"/>'
    return "\n".join([head, style, back, *out, "</svg>\n"])


def main(source: Path, output: Path) -> None:
    """Reads the results and writes the picture."""
    output.write_text(draw(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"wrote {output}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

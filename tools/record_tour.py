"""Records a run of the tour in a terminal as docs/assets/tour.svg: `make pictures`.

    python tools/record_tour.py OUTPUT COMMAND [ARGUMENT...]

The command runs on a pseudo-terminal. Each line of its output appears in the picture when it
appeared on the terminal; where a picture does not move, all lines are there. The folder that Python
is installed in is left out of paths. Exit code 1 if the command fails, and no picture is written.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from html import escape
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS = 128
LARGEST_BYTES = 200_000
FONT_SIZE = 13
CHARACTER = 7.83
"""The width of a character: 0.6022 of the font's size in most monospaced fonts."""
LINE = 18
MARGIN = 16
BACKGROUND = "#1e1f29"
FOREGROUND = "#e6e6e6"
DIM = "#9a9cab"
FONT = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace"
STYLE = f"""
text{{font:{FONT_SIZE}px {FONT};fill:{FOREGROUND};white-space:pre;animation:later 1ms backwards}}
@keyframes later{{from,to{{visibility:hidden}}}}
"""


class Line(NamedTuple):
    seconds: float
    """Since the start, when it was complete."""
    text: str


def record(command: list[str]) -> list[Line]:
    """The lines that the command prints on a terminal. Raises CalledProcessError if it fails."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=inside, stderr=inside, env=environment)
    os.close(inside)
    lines: list[Line] = []
    rest = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that nobody has it open for writing any more
            data = b""
        if not data:
            break
        *complete, rest = (rest + data).split(b"\n")
        now = time.monotonic() - began
        lines += [Line(now, line.decode("utf-8").rstrip("\r")) for line in complete]
    os.close(terminal)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    if rest:
        lines.append(Line(time.monotonic() - began, rest.decode("utf-8")))
    return lines


def draw(title: str, lines: list[Line]) -> str:
    """The picture, as SVG that needs nothing from elsewhere."""
    rows = [(0.0, f'<tspan fill="{DIM}">$ </tspan>{escape(title)}')]
    rows += [(line.seconds, piece) for line in lines for piece in wrapped(line.text)]
    width = round(COLUMNS * CHARACTER) + 2 * MARGIN
    height = len(rows) * LINE + 2 * MARGIN
    size = f'viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} xml:space="preserve" role="img">'
    back = f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>'
    texts = []
    for number, (seconds, content) in enumerate(rows):
        at = f'x="{MARGIN}" y="{MARGIN + LINE * number + FONT_SIZE}"'
        texts.append(f'<text {at} style="animation-delay:{seconds:.2f}s">{content}</text>')
    return "\n".join([head, f"<style>{STYLE}</style>", back, *texts, "</svg>\n"])


def wrapped(line: str) -> list[str]:
    """A line with its colours as rows of SVG, as the terminal breaks it."""
    text = Text.from_ansi(line.replace(sys.base_prefix, "…"))
    pieces = [text[at : at + COLUMNS] for at in range(0, max(len(text), 1), COLUMNS)]
    console = Console(width=COLUMNS, color_system="truecolor", force_terminal=True)
    return [
        "".join(span(s.text, s.style) for s in piece.render(console, end="")) for piece in pieces
    ]


def span(text: str, style: Style | None) -> str:
    """A piece of text with one style."""
    attributes = ""
    if style is not None and style.bold:
        attributes += ' font-weight="bold"'
    if style is not None and style.color is not None and not style.color.is_default:
        attributes += f' fill="{style.color.get_truecolor().hex}"'
    elif style is not None and style.dim:
        attributes += f' fill="{DIM}"'
    return f"<tspan{attributes}>{escape(text)}</tspan>" if attributes else escape(text)


def main(output: Path, command: list[str]) -> None:
    """Records the command and writes the picture."""
    name = " ".join([os.path.basename(command[0]), *command[1:]])
    picture = draw(name, record(command))
    if len(picture.encode()) > LARGEST_BYTES:
        sys.exit(f"{output}: the picture has {len(picture)} bytes, {LARGEST_BYTES} are allowed")
    output.write_text(picture, encoding="utf-8")
    print(f"wrote {output}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])

"""The picture of the rooms as SVG: a box for each room on its level, an arrow for each import.

Text and arrows take the colour of the text around them, so the picture is legible on light and on dark.
"""

from collections.abc import Mapping
from html import escape
from itertools import pairwise

from docs.generators.layout import BOX, Layout, laid_out, without_shortcuts
from docs.generators.rooms import Room, circles, levels, reachable

HEIGHT, STEP, MARGIN = 40.0, 84.0, 12.0
# In the middle of the lightness scale: at least 3 to 1 against white and against a dark page.
COLOURS = ("#2b83c4", "#c25a1c", "#3d9142", "#a45bc9", "#a17f1a", "#c74a73")
ALONE = (
    "<style>svg { color: #222; background: #fff } "
    "@media (prefers-color-scheme: dark) { svg { color: #ddd; background: #1e2129 } }</style>"
)


def picture(rooms: Mapping[str, Room], alone: bool = False) -> str:
    """Return the picture. With `alone` it brings colours of its own, for a file that no page surrounds."""
    level = levels(rooms)
    below = reachable(rooms)
    drawn = without_shortcuts({name: set(room.imports) for name, room in rooms.items()}, below)
    downwards = {
        name: {other for other in others if level[other] < level[name]} for name, others in drawn.items()
    }
    folders = sorted({room.folder for room in rooms.values()})
    order = {name: folders.index(room.folder) for name, room in rooms.items()}
    layout = laid_out(level, downwards, order)
    height = STEP * (len(layout.rows) - 1) + HEIGHT + 2 * MARGIN
    width = layout.width + 2 * MARGIN
    y = {name: height - MARGIN - HEIGHT / 2 - STEP * level[name] for name in rooms}
    colour = {folder: COLOURS[index % len(COLOURS)] for index, folder in enumerate(folders)}
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="rooms" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="rooms-title rooms-text" '
            'font-family="sans-serif" text-anchor="middle">',
            '<title id="rooms-title">The rooms by their imports</title>',
            f'<desc id="rooms-text">{escape(description(rooms))}</desc>',
            *([ALONE] if alone else []),
            '<defs><marker id="rooms-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto">'
            '<path d="M0 0.5 8 4 0 7.5z" fill="currentColor"/></marker></defs>',
            *_arrows(layout, y),
            *_circle_arrows(rooms, layout, y),
            *(
                _box(room, layout.x[name] + MARGIN, y[name], colour[room.folder])
                for name, room in rooms.items()
            ),
            "</svg>",
        ]
    )


def description(rooms: Mapping[str, Room]) -> str:
    """Return the picture in words, for who cannot see it."""
    level = levels(rooms)
    text = "Rooms import only what stands below them, level 0 lowest."
    for number in range(max(level.values(), default=-1), -1, -1):
        text += f" Level {number}: {', '.join(name for name in rooms if level[name] == number)}."
    for circle in circles(rooms):
        text += f" In a circle: {', '.join(sorted(circle))}."
    return text


def _arrows(layout: Layout, y: Mapping[str, float]) -> list[str]:
    lines = []
    for (upper, lower), lane in layout.arrows.items():
        across = [value + MARGIN for value in lane]
        top = y[upper] + HEIGHT / 2
        path = f"M{across[0]:.1f} {top:.1f}"
        for index, (start, end) in enumerate(pairwise(across)):
            from_y = top + index * STEP
            to_y = from_y + STEP - HEIGHT
            path += f"C{start:.1f} {from_y + 22:.1f} {end:.1f} {to_y - 22:.1f} {end:.1f} {to_y:.1f}"
            if index < len(across) - 2:
                path += f"V{to_y + HEIGHT:.1f}"
        lines.append(_line(path, upper, lower))
    return lines


def _circle_arrows(rooms: Mapping[str, Room], layout: Layout, y: Mapping[str, float]) -> list[str]:
    """Return arrows, dashed, between rooms on one level, which import each other in a circle."""
    lines = []
    for circle in circles(rooms):
        for name in sorted(circle):
            for other in sorted(rooms[name].imports & circle):
                start, end = layout.x[name] + MARGIN, layout.x[other] + MARGIN
                top = y[name] - HEIGHT / 2
                bend = top - 20
                path = (
                    f"M{start:.1f} {top:.1f}C{start:.1f} {bend:.1f} {end:.1f} {bend:.1f} {end:.1f} {top:.1f}"
                )
                lines.append(_line(path, name, other, ' stroke-dasharray="4 3"'))
    return lines


def _line(path: str, upper: str, lower: str, more: str = "") -> str:
    return (
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="0.55" '
        f'marker-end="url(#rooms-arrow)"{more}><title>{escape(f"{upper} imports {lower}")}</title></path>'
    )


def _box(room: Room, x: float, y: float, colour: str) -> str:
    files = f"{room.files} file{'' if room.files == 1 else 's'}, {room.lines:,} lines"
    return (
        f"<g><title>{escape(f'{room.name}: {room.purpose}')}</title>"
        f'<rect x="{x - BOX / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{BOX:.0f}" height="{HEIGHT:.0f}" '
        f'rx="5" fill="{colour}" fill-opacity="0.14" stroke="{colour}" stroke-width="1.5"/>'
        f'<text x="{x:.1f}" y="{y - 2:.1f}" font-size="13" fill="currentColor">{escape(room.name)}</text>'
        f'<text x="{x:.1f}" y="{y + 13:.1f}" font-size="11" fill="currentColor">{files}</text></g>'
    )

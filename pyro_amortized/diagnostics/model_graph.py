r"""A model as a picture: population, individuals in their plate, observations, and what depends on
what. Drawn from the structure, as SVG text, without graphviz.
"""

from html import escape

from ..model import ModelStructure

WIDTH, ROW, RADIUS = 130, 110, 26


def model_drawing(structure: ModelStructure, num_individuals: int) -> str:
    r"""SVG of a program's sites.

    Population sites stand above, individual sites and (shaded) observations inside the plate; an
    arrow says that the law of one depends on the other: shared parameters and individual sites act
    on the observations, the other population sites on the individual sites.

    Args:
        structure: The program.
        num_individuals: Size of the plate, for its label.

    Example:
        ``Path("model.svg").write_text(model_drawing(fit.structure, len(fit.cohort)))``
    """
    layers = [list(structure.population), list(structure.individual), structure.series]
    wide = max(3, *(len(x) for x in layers))
    width, height = WIDTH * wide + 40, 3 * ROW + 14
    places = {}
    for depth, names in enumerate(layers):
        for j, name in enumerate(names):
            x = 20 + width / 2 - 20 + WIDTH * (j - (len(names) - 1) / 2)
            places[depth, name] = (x, 50 + ROW * depth)
    shared = set(structure.shared)
    edges = [((1, a), (2, b)) for a in layers[1] for b in layers[2]]
    for name in layers[0]:
        depth, targets = (2, layers[2]) if name in shared else (1, layers[1])
        edges += [((0, name), (depth, b)) for b in targets]
    lines = "".join(_line(places[a], places[b]) for a, b in edges)
    nodes = "".join(_node(*places[key], key[1], key[0] == 2) for key in places)
    label = escape(f"individual, {num_individuals}")
    plate = (
        f'<rect x="10" y="{50 + ROW - 48}" width="{width - 20}" height="{2 * ROW}" rx="8" '
        'fill="none" stroke="#8a8f98"/>'
        f'<text x="{width - 20}" y="{50 + ROW - 48 + 2 * ROW - 8}" text-anchor="end" '
        f'font-size="12" fill="#555">{label}</text>'
    )
    arrow = (
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="3" '
        'orient="auto"><path d="M0,0 L7,3 L0,6 z" fill="#555"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" font-family="sans-serif">'
        f"<title>Sites of the model</title>{arrow}{plate}{lines}{nodes}</svg>"
    )


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    dx, dy = (x2 - x1) / length * RADIUS, (y2 - y1) / length * RADIUS
    return (
        f'<line x1="{x1 + dx:.1f}" y1="{y1 + dy:.1f}" x2="{x2 - dx:.1f}" y2="{y2 - dy:.1f}" '
        'stroke="#555" marker-end="url(#head)"/>'
    )


def _node(x: float, y: float, name: str, observed: bool) -> str:
    fill = "#d5d8de" if observed else "#ffffff"
    shown = name if len(name) <= 16 else name[:15] + "…"
    return (
        f'<ellipse cx="{x:.1f}" cy="{y}" rx="{WIDTH / 2 - 8}" ry="{RADIUS - 4}" fill="{fill}" '
        'stroke="#1f2a44"/>'
        f'<text x="{x:.1f}" y="{y + 4}" text-anchor="middle" font-size="12" fill="#1f2a44">'
        f"{escape(shown)}</text>"
    )

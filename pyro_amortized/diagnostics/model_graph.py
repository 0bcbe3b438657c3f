r"""The graph of a model as SVG text: its sites, the plate of the individuals, and dependencies.

It is drawn from the structure of the model. ``pyro.render_model`` needs the program graphviz.
"""

from html import escape

from ..model import ModelStructure

WIDTH, ROW, RADIUS = 130, 110, 26  # of a node, between rows, from a node to an arrow; in pixels
MAX_CHARACTERS = 16  # of a name, which must fit into its node


def model_drawing(structure: ModelStructure, num_individuals: int) -> str:
    r"""Draw the sites of a model as SVG.

    Population sites are in the first row; individual sites and observations (shaded) are inside the
    plate. An arrow from a site means that the distribution of the other site depends on it: shared
    parameters and individual sites act on the observations, the other population sites act on the
    individual sites.

    Args:
        structure: Structure of the model.
        num_individuals: Size of the plate, for its label.

    Returns:
        The SVG element.

    Example:
        ``Path("model.svg").write_text(model_drawing(fit.structure, len(fit.cohort)))``
    """
    layers = [list(structure.population), list(structure.individual), structure.series]
    columns = max(3, *(len(x) for x in layers))
    width, height = WIDTH * columns + 40, 3 * ROW + 14
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
    plate = _plate(width, num_individuals)
    arrow = (
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="3" '
        'orient="auto"><path d="M0,0 L7,3 L0,6 z" fill="#555"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" font-family="sans-serif">'
        f"<title>Sites of the model</title>{arrow}{plate}{lines}{nodes}</svg>"
    )


def _plate(width: int, num_individuals: int) -> str:
    label = escape(f"individual, {num_individuals}")
    return (
        f'<rect x="10" y="{50 + ROW - 48}" width="{width - 20}" height="{2 * ROW}" rx="8" '
        'fill="none" stroke="#8a8f98"/>'
        f'<text x="{width - 20}" y="{50 + ROW - 48 + 2 * ROW - 8}" text-anchor="end" '
        f'font-size="12" fill="#555">{label}</text>'
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
    label = name if len(name) <= MAX_CHARACTERS else name[: MAX_CHARACTERS - 1] + "…"
    return (
        f'<ellipse cx="{x:.1f}" cy="{y}" rx="{WIDTH / 2 - 8}" ry="{RADIUS - 4}" fill="{fill}" '
        'stroke="#1f2a44"/>'
        f'<text x="{x:.1f}" y="{y + 4}" text-anchor="middle" font-size="12" fill="#1f2a44">'
        f"{escape(label)}</text>"
    )

"""Reading the front point by point: the page's only script, and the data that it reads."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from mpsearch.reports.facts import Facts
from mpsearch.reports.front_facts import ALPHABET
from mpsearch.reports.front_points_table import point_text
from mpsearch.running.foreign_text import shown

# The data are JSON in an element that is not run; names reach the page as text nodes only.
SCRIPT = """
(() => {
  const data = JSON.parse(document.getElementById('front-data').textContent);
  const plot = document.getElementById('front-plot');
  const svg = plot.querySelector('svg');
  const reading = document.getElementById('front-reading');
  const ring = document.createElementNS(svg.namespaceURI, 'circle');
  ring.setAttribute('r', 6);
  ring.setAttribute('class', 'ring');
  const line = (text, tag) => {
    const part = document.createElement(tag);
    part.textContent = text;
    reading.append(part);
  };
  let at = data.start;
  const show = (place) => {
    at = Math.max(0, Math.min(data.points.length - 1, place));
    const [x, y, text, code] = data.points[at];
    ring.setAttribute('cx', x);
    ring.setAttribute('cy', y);
    svg.append(ring);
    reading.textContent = '';
    line(text, 'strong');
    data.choices.forEach((choice, place) => {
      const layers = data.layers.filter((_, n) => code[n] === data.letters[place]);
      if (layers.length) line(`${choice} (${layers.length}): ${layers.join(', ')}`, 'p');
    });
  };
  const nearest = (event) => {
    const own = svg.getScreenCTM().inverse();
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(own);
    let best = Infinity;
    data.points.forEach(([px, py], place) => {
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < best) { best = far; at = place; }
    });
    show(at);
  };
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1,
    PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 };
  svg.addEventListener('pointermove', nearest);
  svg.addEventListener('pointerdown', nearest);
  plot.addEventListener('focus', () => show(at));
  plot.addEventListener('keydown', (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    show(at + keys[event.key]);
  });
  plot.tabIndex = 0;
  reading.hidden = false;
  line('Point at the front, or focus it and use the arrow keys, to read an assignment.', 'p');
})();
"""


def script_source() -> str:
    """The source expression of a content security policy that allows exactly this script."""
    return f"'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'"


def front_data(facts: Facts, places: Sequence[tuple[float, float]]) -> str:
    """JSON that is safe inside a script element: no <, > or & in it, whatever layers are called."""
    found = facts.front
    assert found is not None
    made = found.assignments
    assert made is not None
    points = [
        [x, y, shown(point_text(found, point)), code]
        for (x, y), point, code in zip(places, made.points, made.codes, strict=True)
    ]
    start = 0
    total = facts.answer.point.totals.get(found.resource) if facts.answer else None
    if total is not None:
        near = [abs(found.totals[point] - total) for point in made.points]
        start = near.index(min(near))
    document = {
        "layers": [shown(name) for name in made.layers], "choices": made.choices,
        "letters": ALPHABET, "points": points, "start": start,
    }  # fmt: skip
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text

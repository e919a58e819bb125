"""Reading the front point by point: its parts, the page's only script, and the data that it reads.

Without the script the chosen assignment is read, and the parts are changed all the same.
"""

import json
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha256

from mpsearch.reports.facts import Facts, FrontFacts
from mpsearch.reports.front_facts import ALPHABET, point_text
from mpsearch.reports.front_figure import front_drawing, front_parts
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import Drawing, InlineSvg, inline_svg, scale_of
from mpsearch.running.streams import html_text, shown
from mpsearch.tables.choice import Choice
from mpsearch.tables.units import format_amount

NAMED = 300  # layers: of more the chosen assignment says how many have which bits

# The data are JSON in an element that is not run; names reach the page as text nodes only.
SCRIPT = """
(() => {
  const data = JSON.parse(document.getElementById('front-data').textContent);
  const plot = document.getElementById('front-plot');
  const views = plot.querySelector('.views');
  const svgs = [...views.querySelectorAll('svg')];
  const radios = [...plot.querySelectorAll('input[type=radio]')];
  const reading = document.getElementById('front-reading');
  const limit = document.getElementById('front-limit');
  const ring = document.createElementNS(svgs[0].namespaceURI, 'circle');
  ring.setAttribute('r', 6);
  ring.setAttribute('class', 'ring');
  const line = (text, tag) => {
    const part = document.createElement(tag);
    part.textContent = text;
    reading.append(part);
  };
  const view = () => Math.max(0, radios.findIndex((radio) => radio.checked));
  const within = (place, of) => {
    const [first, places] = data.views[of];
    return place >= first && place < first + places.length;
  };
  let at = data.start;
  const show = (place) => {
    at = Math.max(0, Math.min(data.points.length - 1, place));
    if (!within(at, view())) {
      radios[data.views.findIndex((_, of) => of > 0 && within(at, of))].checked = true;
    }
    const [first, places] = data.views[view()];
    const [text, code] = data.points[at];
    const [x, y] = places[at - first];
    ring.setAttribute('cx', x);
    ring.setAttribute('cy', y);
    svgs[view()].append(ring);
    reading.textContent = '';
    line(text, 'strong');
    data.choices.forEach((choice, place) => {
      const layers = data.layers.filter((_, n) => code[n] === data.letters[place]);
      if (layers.length) line(`${choice} (${layers.length}): ${layers.join(', ')}`, 'p');
    });
  };
  const nearest = (event) => {
    const own = svgs[view()].getScreenCTM().inverse();
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(own);
    const [first, places] = data.views[view()];
    let best = Infinity;
    places.forEach(([px, py], place) => {
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < best) { best = far; at = first + place; }
    });
    show(at);
  };
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1,
    PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 };
  svgs.forEach((svg) => {
    svg.addEventListener('pointermove', nearest);
    svg.addEventListener('pointerdown', nearest);
  });
  radios.forEach((radio) => radio.addEventListener('change', () => {
    const [first, places] = data.views[view()];
    show(Math.max(first, Math.min(first + places.length - 1, at)));
  }));
  views.addEventListener('focus', () => show(at));
  views.addEventListener('keydown', (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    show(at + keys[event.key]);
  });
  limit.addEventListener('input', () => {
    const most = limit.valueAsNumber * data.unit * (1 + 1e-5);
    const fit = data.points.findLastIndex((point) => point[2] <= most);
    if (fit >= 0) { show(fit); return; }
    ring.remove();
    reading.textContent = '';
    line('No point of the front takes so little.', 'p');
  });
  views.tabIndex = 0;
  document.getElementById('front-finder').hidden = false;
})();
"""


def script_source() -> str:
    """The source expression of a content security policy that allows exactly this script."""
    return f"'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'"


def front_html(facts: Facts, drawing: Drawing) -> str:
    """The front with its parts to choose among, its points to read and the best one of a limit."""
    found = facts.front
    assert found is not None
    made = found.assignments
    whole = inline_svg(drawing)
    if made is None or not whole.places:
        return f"<figure>{whole.svg}{_caption(drawing)}</figure>"
    parts = front_parts(facts)
    views = [whole]
    for place, part in enumerate(parts, 1):
        views.append(inline_svg(front_drawing(part, panel=False, name=f"front-part-{place}")))
    first = [0, *(_place(made.points, found, part) for part in parts)]
    data = front_data(facts, views, first)
    pictures = "".join(f"<div>{view.svg}</div>" for view in views)
    return (
        f"<figure><fieldset id='front-plot'>{_radios(found.resource, parts)}"
        "<div class='views' role='group' aria-label='Points of the front: arrow keys move from one "
        f"to the next'>{pictures}</div></fieldset>{_finder(facts, found)}"
        f"<div id='front-reading' role='status'>{_chosen(facts)}</div>"
        f"{_caption(drawing)}<script type='application/json' id='front-data'>{data}</script>"
        "</figure>"
    )


def _caption(drawing: Drawing) -> str:
    return f"<figcaption>{html_text(drawing.caption)}</figcaption>"


def _place(points: Sequence[int], found: FrontFacts, part: Facts) -> int:
    """Which of the points that can be read is the first one of the part."""
    assert part.front is not None
    return bisect_left(points, found.totals.index(part.front.totals[0]))


def _radios(resource: str, parts: Sequence[Facts]) -> str:
    """One button for the whole front and one for each part; none where there are no parts."""
    if not parts:
        return ""
    names = ["all"]
    for part in parts:
        assert part.front is not None
        ends = [format_amount(resource, part.front.totals[end]).strip() for end in (0, -1)]
        numbers = [end.partition(" ") for end in ends]
        same = numbers[0][2] == numbers[1][2]
        names.append(f"{numbers[0][0] if same else ends[0]} to {ends[1]}")
    buttons = "".join(
        f"<input type='radio' name='front-part' id='front-part-{place}'"
        f"{' checked' if place == 0 else ''}><label for='front-part-{place}'>{html_text(name)}"
        "</label>"
        for place, name in enumerate(names)
    )
    return f"<legend>Part of the front</legend>{buttons}"


def _finder(facts: Facts, found: FrontFacts) -> str:
    """A limit to type, prefilled with the one that was asked, else with what was chosen."""
    unit, name = scale_of(found.resource, max(found.totals))
    asked = next((one.limit for one in facts.limits if one.column == found.resource), None)
    if asked is None and facts.answer is not None:
        asked = facts.answer.point.totals.get(found.resource)
    value = "" if asked is None else f"{asked / unit:.6g}"
    label = html_text(NAMES.get(found.resource, found.resource))
    return (
        f"<p id='front-finder' hidden><label for='front-limit'>Best point of {label} at most"
        f"</label> <input type='number' id='front-limit' min='0' step='any' value='{value}'> "
        f"{html_text(name)} <span>Or point at the front, or focus it and use the arrow keys.</span>"
        "</p>"
    )


def _chosen(facts: Facts) -> str:
    """The chosen assignment, as the script shows any other."""
    answer, found = facts.answer, facts.front
    assert found is not None
    if answer is None:
        return "<p>No assignment is chosen yet.</p>"
    total = answer.point.totals.get(found.resource)
    text = f"chosen: Ω {answer.point.omega:.4g}"
    if total is not None:
        name = NAMES.get(found.resource, found.resource)
        text += f", {name} {format_amount(found.resource, total).strip()}"
    by_choice: dict[Choice, list[str]] = {}
    for layer in facts.layers:
        if layer.choice is not None:
            by_choice.setdefault(layer.choice, []).append(layer.name)
    lines = [
        f"{choice} ({len(names)})" + (f": {', '.join(names)}" if len(facts.layers) <= NAMED else "")
        for choice, names in sorted(by_choice.items())
    ]
    rest = "".join(f"<p>{html_text(line)}</p>" for line in lines)
    return f"<strong>{html_text(text)}</strong>{rest}"


def front_data(facts: Facts, views: Sequence[InlineSvg], first: Sequence[int]) -> str:
    """JSON that is safe inside a script element: no <, > or & in it, whatever layers are called.

    views: pictures of the front and of its parts; first: the point that each of them begins with.
    """
    found = facts.front
    assert found is not None
    made = found.assignments
    assert made is not None
    points = [
        [shown(point_text(found, point)), code, found.totals[point]]
        for point, code in zip(made.points, made.codes, strict=True)
    ]
    start = 0
    total = facts.answer.point.totals.get(found.resource) if facts.answer else None
    if total is not None:
        near = [abs(found.totals[point] - total) for point in made.points]
        start = near.index(min(near))
    document = {
        "layers": [shown(name) for name in made.layers], "choices": made.choices,
        "letters": ALPHABET, "points": points, "start": start,
        "unit": scale_of(found.resource, max(found.totals))[0],
        "views": [[place, view.places] for place, view in zip(first, views, strict=True)],
    }  # fmt: skip
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text

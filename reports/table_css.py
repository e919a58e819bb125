"""The words before each value where a table's rows are cards, as style and not in every cell."""

from collections.abc import Sequence
from hashlib import sha256

from mpsearch.running.foreign_text import shown


def label_css(header: Sequence[str]) -> tuple[str, str]:
    """Rules for a table with these column names, and the class that it needs.

    ("layer", "bits") -> "@media … { .t1f09 td:nth-child(2)::before { content: "bits" } }". The same
    header gives the same class.
    """
    name = "t" + sha256("\0".join(header).encode()).hexdigest()[:8]
    rules = "".join(
        f'.{name} td:nth-child({place})::before{{content:"{css_text(text)}"}}'
        for place, text in enumerate(header[1:], 2)
    )
    return f"@media screen and (max-width:40rem){{{rules}}}", name


def css_text(text: str) -> str:
    """Inside a CSS string; all but ASCII letters and digits as code points: `a<b` -> `a\\3c b`.

    Nothing in it can end the string or the style element.
    """
    return "".join(
        letter if letter.isascii() and letter.isalnum() else f"\\{ord(letter):x} "
        for letter in shown(text)
    )

"""The frame of an HTML report: style and nothing else; no script, no address."""

from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --muted: #5c5c66; --lines: #d9d9de;
  --paper: #ffffff; --shade: #f4f4f7; --blue: #0072b2; --orange: #c04f00; --green: #00795a;
  --purple: #a5548a; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf1; --muted: #a4a4b0; --lines: #3a3a44;
  --paper: #17171b; --shade: #222228; --blue: #56b4e9; --orange: #f0a04b; --green: #3ecf9f;
  --purple: #e29cc4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--lines);
  padding-bottom: .25rem; }
p { max-width: 46rem; overflow-wrap: anywhere; }
.lead { font-size: 1.1rem; }
.notice { border-left: 4px solid var(--orange); background: var(--shade); padding: .5rem .75rem; }
figure { margin: 1rem 0; max-width: 40rem; }
svg { display: block; width: 100%; height: auto; }
figcaption, footer, caption { color: var(--muted); font-size: .875rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .25rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--lines); vertical-align: top; }
th { font-weight: 600; text-align: left; }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap; }
.prose td { overflow-wrap: anywhere; }
tbody th { font-weight: 400; }
tbody th span { display: inline-block; max-width: 18rem; overflow-wrap: break-word; }
pre { background: var(--shade); padding: .75rem; font-size: .8125rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin: 2rem 0 1rem; }
@media print {
  :root { --ink: #000; --muted: #444; --lines: #bbb; --paper: #fff; --shade: #f2f2f2;
    --blue: #0072b2; --orange: #c04f00; --green: #00795a; --purple: #a5548a; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
  .wide { overflow: visible; }
  table { font-size: 8pt; } .numbers td { white-space: normal; }
}
"""


def page(title: str, body: str, version: str) -> str:
    """The document around `body`, which is HTML already; `title` is text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
<footer>Written by mpsearch {escape(version)}. Ω: how much quantizing a layer perturbs the loss, as
the table's metric estimates it; lower is better. 1 KB = 1024 B. BOPS: MACs × weight bits ×
activation bits.</footer>
</body>
</html>
"""

"""The frame of an HTML report: style, the one script and the policy that allows it; no address."""

from mpsearch.reports.front_reading import SCRIPT, script_source
from mpsearch.running.streams import html_text

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --muted: #5c5c66; --lines: #d9d9de;
  --paper: #ffffff; --shade: #f4f4f7; --blue: #0072b2; --orange: #c04f00; --green: #00795a;
  --purple: #a5548a; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #ececf1; --muted: #a4a4b0;
  --lines: #3a3a44; --paper: #17171b; --shade: #222228; --blue: #56b4e9; --orange: #f0a04b;
  --green: #3ecf9f; --purple: #e29cc4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem; max-width: 112rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--lines);
  padding-bottom: .25rem; }
#answer h2 { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
a { color: var(--blue); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .4rem 0 0;
  padding: 0; font-size: .875rem; }
section { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 2rem; }
section > * { flex: 0 0 100%; min-width: 0; }
p { max-width: 64rem; margin: .5rem 0; overflow-wrap: anywhere; }
.lead { font-size: 1.1rem; max-width: none; }
.numbers-first { display: grid; gap: .75rem 2rem; margin: 1rem 0 .5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.numbers-first > div { display: flex; flex-direction: column-reverse; justify-content: flex-end;
  border-left: 4px solid var(--blue); padding-left: .75rem; }
dt { color: var(--muted); font-size: .875rem; }
dd { margin: 0; font-size: 2.1rem; line-height: 1.2; font-weight: 600; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.notice { border-left: 4px solid var(--orange); background: var(--shade); padding: .5rem .75rem; }
section > figure { flex: 1 1 30rem; max-width: 42rem; }
#bits > figure { flex-basis: 22rem; }
section > .wide { flex: 0 1 auto; max-width: 100%; }
figure { margin: 1rem 0; }
svg { display: block; width: 100%; height: auto; }
figcaption, footer, caption { color: var(--muted); font-size: .875rem; }
#front-plot { border: 0; margin: 0; padding: 0; min-width: 0; font-size: .8125rem; }
#front-plot legend { float: left; padding: 0; margin-right: .5rem; color: var(--muted); }
#front-plot input { position: absolute; opacity: 0; }
#front-plot label { display: inline-block; white-space: nowrap; cursor: pointer;
  border: 1px solid var(--lines); border-radius: .25rem; padding: .05rem .5rem;
  margin: 0 .25rem .25rem 0; }
#front-plot :checked + label { background: var(--blue); color: var(--paper); }
#front-plot :focus-visible + label { outline: 2px solid var(--orange); outline-offset: 1px; }
.views { clear: both; touch-action: pan-y; }
.views:focus-visible { outline: 2px solid var(--blue); }
.views > div { display: none; } .views > :only-child,
#front-part-0:checked ~ .views > :nth-child(1),
#front-part-1:checked ~ .views > :nth-child(2),
#front-part-2:checked ~ .views > :nth-child(3),
#front-part-3:checked ~ .views > :nth-child(4),
#front-part-4:checked ~ .views > :nth-child(5),
#front-part-5:checked ~ .views > :nth-child(6),
#front-part-6:checked ~ .views > :nth-child(7) { display: block; }
#front-finder { font-size: .875rem; } #front-limit { width: 7rem; font: inherit; }
#front-finder span { color: var(--muted); }
#front-reading { background: var(--shade); padding: .5rem .75rem; margin: .5rem 0;
  font-size: .875rem; height: 9.5rem; overflow: auto; overflow-wrap: anywhere; }
#front-reading p { margin: .25rem 0; }
.ring { fill: none; stroke: var(--ink); stroke-width: 2; pointer-events: none; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .25rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--lines); vertical-align: top; }
th { font-weight: 600; text-align: left; }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap; }
.numbers thead th { overflow-wrap: normal; vertical-align: bottom; }
.prose td { overflow-wrap: anywhere; }
tbody th { font-weight: 400; }
tbody th span { display: inline-block; max-width: 17rem; overflow-wrap: break-word; }
summary { cursor: pointer; margin: .75rem 0; }
pre { background: var(--shade); padding: .75rem; font-size: .8125rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin: 2rem 0 1rem; }
@media screen and (max-width: 40rem) {
  body { padding: .75rem; } h1 { font-size: 1.3rem; }
  nav ul { flex-wrap: nowrap; overflow-x: auto; white-space: nowrap; }
  .numbers-first { gap: .5rem; } dd { font-size: 1.7rem; }
  table, caption, tbody { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .4rem 0;
    border-bottom: 1px solid var(--lines); }
  tbody th, .numbers td, .prose td { border: 0; padding: 0; text-align: left; white-space: normal;
    overflow-wrap: anywhere; }
  tbody th { flex: 0 0 100%; font-weight: 600; }
  tbody th span { max-width: 100%; overflow-wrap: anywhere; }
  td::before { color: var(--muted); margin-right: .35rem; }
  td:empty { display: none; }
  .pairs td::before { content: none !important; }
}
@media print {
  :root { --ink: #000; --muted: #444; --lines: #bbb; --paper: #fff; --shade: #f2f2f2;
    --blue: #0072b2; --orange: #c04f00; --green: #00795a; --purple: #a5548a; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr { break-inside: avoid; } h2, caption { break-after: avoid; }
  section { display: block; } p + figure { break-before: avoid; }
  section > figure { display: inline-block; width: 48%; margin: .5rem 1% .5rem 0;
    vertical-align: top; }
  nav, legend, #front-plot input, #front-plot label, #front-finder { display: none; }
  .views > div:first-child { display: block; } .views > div + div { display: none !important; }
  .numbers-first { grid-template-columns: repeat(3, 1fr); } dd { font-size: 16pt; }
  .wide { overflow: visible; }
  table { font-size: 8pt; } th, td { padding: .15rem .4rem; } .numbers td { white-space: normal; }
  .ring, details:not([open]) { display: none; } #front-reading { display: none; }
}
"""


def page(title: str, body: str, version: str, styles: str = "", scripted: bool = False) -> str:
    """The document around `body`, which is HTML already; `title` is text. styles: further rules.
    scripted: the body has a front whose points can be read."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    script = ""
    if scripted:
        policy += f"; script-src {script_source()}"
        script = f"<script>{SCRIPT}</script>\n"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html_text(title)}</title>
<style>{STYLE}{styles}</style>
</head>
<body>
<h1>{html_text(title)}</h1>
{body}
<footer>Written by mpsearch {html_text(version)}. w4a8: 4-bit weights and 8-bit input activations.
Ω: how much quantizing a layer perturbs the loss, as the table's metric estimates it; lower is
better. 1 KB = 1024 B. BOPS: MACs × weight bits × activation bits.</footer>
{script}</body>
</html>
"""

"""The style of the pages: system fonts, light and dark, nothing that is fetched from elsewhere."""

from __future__ import annotations

PAGE = """
:root { color-scheme: light dark;
  --page: #ffffff; --text: #1d2329; --soft: #5b6570; --line: #d9dee3; --panel: #f5f7f9; --link: #0b62a8;
  --good: #0072b2; --good-back: #e3f0f9; --bad: #b34700; --bad-back: #fcebdf; --part: #8a6100; --part-back: #faf1da }
@media (prefers-color-scheme: dark) { :root {
  --page: #14181d; --text: #dde3e9; --soft: #97a3af; --line: #323a43; --panel: #1c2229; --link: #6cb6f0;
  --good: #6cb6f0; --good-back: #15304a; --bad: #f0955a; --bad-back: #43230f; --part: #d9b45b; --part-back: #3a2f10 } }
* { box-sizing: border-box }
html { scroll-padding-top: 3.2rem }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans KR", sans-serif }
main { max-width: 900px; margin: 0 auto; padding: 1rem 1.25rem 4rem }
nav { position: sticky; top: 0; z-index: 1; background: var(--page); border-bottom: 1px solid var(--line) }
nav div { max-width: 900px; margin: 0 auto; padding: .5rem 1.25rem; display: flex; gap: 1rem; font-size: .875rem }
nav div > * { flex: 1; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
nav div > :nth-child(2) { text-align: center; flex: 0 0 auto } nav div > :last-child { text-align: right }
a { color: var(--link); text-decoration: none } a:hover { text-decoration: underline }
h1, h2, h3, h4 { line-height: 1.25; margin: 2.2em 0 .6em; font-weight: 650; letter-spacing: -.01em }
h1 { font-size: 1.9rem; margin-top: 1rem } h2 { font-size: 1.4rem } h3 { font-size: 1.15rem } h4 { font-size: 1rem }
p, ul, ol { margin: .7em 0 }
.anchor-link { opacity: 0; margin-left: .4em; font-weight: 400 } :hover > .anchor-link { opacity: .6 }
code, pre, .prompt { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
code { font-size: .875em; background: var(--panel); border-radius: 3px; padding: .1em .3em }
pre { font-size: .8125rem; line-height: 1.5; margin: 0; overflow-x: auto } pre code { background: none; padding: 0 }
blockquote { margin: 1em 0; padding: .1em 1em; border-left: 4px solid var(--line); color: var(--soft) }
math { font-family: math, "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", serif }
math[display="block"] { margin: 1em 0; font-size: 1.1em } .formula { white-space: pre-wrap }
table { border-collapse: collapse; font-size: .875rem; margin: .8em 0; font-variant-numeric: tabular-nums }
th, td { padding: .3em .8em; text-align: right; border-bottom: 1px solid var(--line) } th { font-weight: 600 }
:is(.text_cell, .output_markdown) :is(th, td):not([style]) { text-align: left }
img, video, audio, svg { max-width: 100% } img { height: auto } .output_png img { background: #fff; border-radius: 4px }
.code_cell { margin: 1.1em 0; position: relative; scroll-margin-top: 3.2rem }
.code_cell .input { position: relative; background: var(--panel); border: 1px solid var(--line); border-radius: 6px }
.input pre { padding: .6em .9em } .input_area .highlight { background: none }
.prompt { position: absolute; right: 100%; top: .7em; margin-right: .6rem; font-size: .6875rem; color: var(--soft) }
@media (max-width: 1010px) { .prompt { right: .6rem; margin: 0; top: .15rem; z-index: 1 } }
.output { padding: .5em .1em 0; overflow-x: auto } .output_area + .output_area { margin-top: .5em }
.output_area > :first-child > :first-child { margin-top: 0 }
.output_stderr, .output_error { background: var(--bad-back); border-left: 4px solid var(--bad); padding: .5em .9em }
.text_cell .highlight { background: var(--panel); border-radius: 6px; padding: .6em .9em; margin: .8em 0 }
mtd[columnalign="right"] { text-align: right } mtd[columnalign="left"] { text-align: left }
mtable[columnspacing^="0em"] mtd { padding-left: 0; padding-right: 0 }
.ansi-red-fg, .ansi-red-intense-fg { color: var(--bad) } .ansi-yellow-fg, .ansi-yellow-intense-fg { color: var(--part) }
.ansi-blue-fg, .ansi-cyan-fg, .ansi-blue-intense-fg, .ansi-cyan-intense-fg { color: var(--link) }
.ansi-green-fg, .ansi-green-intense-fg { color: var(--good) } .ansi-bold { font-weight: 600 }
.output_error span[style] { color: inherit !important }
.banner { background: var(--bad-back); border-left: 5px solid var(--bad); padding: .7em 1em; margin: 1em 0 }
"""

INDEX = """
.lead { color: var(--soft) } .grid { width: 100%; table-layout: fixed; border-spacing: 4px; border-collapse: separate }
.grid th { border: 0; text-align: left; padding: .2em .3em; color: var(--soft); font-weight: 600 }
.grid thead th { font-size: .75rem } .grid tbody th { color: var(--text) }
.grid td { border: 1px solid var(--line); border-radius: 6px; padding: .45em .6em; text-align: left; height: 3.6em;
  vertical-align: top; line-height: 1.35 }
.grid b { font-size: .95rem } .grid .seconds { float: right; color: var(--soft); font-size: .75rem }
.grid .state { display: block; font-size: .75rem; white-space: nowrap }
.grid .passed { background: var(--good-back); border-color: var(--good) } .passed .state { color: var(--good) }
.grid :is(.failed, .interrupted) { background: var(--bad-back); border-color: var(--bad) }
:is(.failed, .interrupted) .state { color: var(--bad) }
.grid .not-built-yet { border-style: dashed; color: var(--soft) } .grid .not-run { background: var(--panel) }
.scroll { overflow-x: auto } .scroll .grid { min-width: 730px }
.claims td, .facts td, .facts th { text-align: left; vertical-align: top }
.claims { width: 100% } .claims td:first-child { width: 9.5rem } .claims small { color: var(--soft) }
.chip { display: inline-block; border-radius: 3px; padding: 0 .5em; font-weight: 600; font-size: .8125rem }
.chip.holds { color: var(--good); background: var(--good-back) }
.chip.not { color: var(--bad); background: var(--bad-back) }
.chip.partly { color: var(--part); background: var(--part-back) } details { margin: .6em 0 } summary { cursor: pointer }
.facts th { color: var(--soft); font-weight: 400; white-space: nowrap } .versions { columns: 3; font-size: .8125rem }
"""

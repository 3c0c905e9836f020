"""A trace as a page: one string of HTML that reads without scripts, on a light and on a dark page."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from html import escape
from itertools import groupby

from ..errors import ParameterError
from . import wording
from .drawing import image
from .outline import Node, fitting, hidden_in
from .rows import Row, Statistics, TensorInfo, Trace
from .table import parameters

ENTRIES = 1500  # rows that a page has at most, where no depth is given
OPEN = 30  # rows that are seen at first
PICTURES = 600_000  # characters that pictures may take in all
FIGURES = ("parameters", "FLOPs", "memory", "time")  # columns that are set to the right

STYLE = """
.av-shapes { LIGHT; background: var(--page); color: var(--text); text-align: left; overflow-x: auto;
  font: 13px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; padding: .7em .9em;
  border-radius: 6px; --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
@media (prefers-color-scheme: dark) { .av-shapes { DARK } }
[data-jp-theme-light="true"] .av-shapes { LIGHT }
[data-jp-theme-light="false"] .av-shapes, .vscode-dark .av-shapes { DARK }
.av-shapes :is(code, .t, td) { font-family: var(--mono); font-size: 12px }
.av-shapes code { background: none; color: inherit; padding: 0; user-select: all }
.av-shapes h4 { margin: 0 0 .15em; font-size: 15px; font-weight: 650 }
.av-shapes p { margin: .1em 0; color: var(--soft) }
.av-shapes p.bad { background: var(--bad-back); color: var(--bad); border-left: 4px solid; padding: .3em .7em }
.av-shapes .t { margin-top: .6em; border-bottom: 1px solid var(--line) }
.av-shapes .r { display: grid; column-gap: .8em; padding: .12em 0; border-top: 1px solid var(--line) }
.av-shapes .r > * { overflow-wrap: anywhere }
.av-shapes .r > :is(.f, .h) { text-align: right; white-space: nowrap; overflow-wrap: normal }
.av-shapes .r > .w { color: var(--soft) }
.av-shapes .r > .n { grid-column: 2 }
.av-shapes summary.r { cursor: pointer; list-style: none }
.av-shapes summary.r::-webkit-details-marker { display: none }
.av-shapes summary.r:hover { background: var(--panel) }
.av-shapes summary.r > :first-child::before { content: "▸"; display: inline-block; width: 1.2em; color: var(--soft) }
.av-shapes details[open] > summary.r > :first-child::before { content: "▾" }
.av-shapes .head { color: var(--soft); border: 0; font-family: system-ui, sans-serif }
.av-shapes .i { padding-left: 1.2em; box-shadow: inset 1px 0 var(--line) }
.av-shapes .p { color: var(--soft); padding: .2em .2em .4em 0; line-height: 1.6 }
.av-shapes .p b { font-weight: 400; color: var(--text) }
.av-shapes .o > summary { color: var(--soft) }
.av-shapes .e > summary > :first-child { color: var(--bad); font-weight: 600 }
.av-shapes small { color: var(--soft); font-size: 11px }
.av-shapes .r small { display: inline-block; max-width: 100%; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; vertical-align: bottom }
.av-shapes :is(img, svg) { vertical-align: middle; margin: .2em .6em .2em 0; max-width: none; background: #fff }
.av-shapes table { border-collapse: collapse; margin: .3em 0 }
.av-shapes :is(th, td) { text-align: left; padding: .15em 1.2em .15em 0; border-bottom: 1px solid var(--line);
  background: none; color: inherit; vertical-align: top; white-space: normal }
.av-shapes th { color: var(--soft); font-weight: 400 }
.av-shapes td:first-child, .av-shapes .s td:nth-child(2) { white-space: nowrap }
.av-shapes .m { margin-top: .5em }
.av-shapes .m > summary { cursor: pointer }
.av-shapes .m td:nth-child(3) { font: inherit }
.av-shapes input { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 4px; padding: .2em .6em; width: 22em; max-width: 100%; margin: .5em .8em 0 0 }
""".strip()
_LIGHT = "--page:#fff;--text:#1d2329;--soft:#5b6570;--line:#e1e5e9;--panel:#f5f7f9;--bad:#b34700;--bad-back:#fcebdf"
_DARK = "--page:#14181d;--text:#dde3e9;--soft:#97a3af;--line:#2b323a;--panel:#1c2229;--bad:#f0955a;--bad-back:#43230f"

# Finds rows, and copies a path on a click. What stands for several is found under each of their names.
SCRIPT = """
(() => {
  const root = document.getElementById("ID");
  if (!root || root.dataset.on) return;
  root.dataset.on = 1;
  const tree = root.querySelector(".t"), box = document.createElement("input"), told = document.createElement("small");
  box.type = "search";
  box.placeholder = "find a path, operation, size or formula";
  box.setAttribute("aria-label", box.placeholder);
  told.setAttribute("role", "status");
  tree.before(box, told);
  const all = [...tree.querySelectorAll("details")], number = new Map(all.map((e, k) => [e, k]));
  const was = all.map(e => e.open);
  const above = all.map(e => number.get(e.parentElement.closest("details")) ?? -1);
  const panel = e => e.querySelector(":scope > .i > .p")?.textContent ?? "";
  const text = all.map(e => `${e.firstElementChild.textContent} ${panel(e)} ${e.dataset.m ?? ""}`.toLowerCase());
  const groups = all.filter(e => e.dataset.m).map(e => e.dataset.m.toLowerCase().split(" "));
  const tail = path => path.split(".").slice(-2).join(".");
  const asFirst = query => {
    for (const names of groups) for (const name of names.map(tail)) {
      const at = query.indexOf(name);
      if (at >= 0 && !/^\\d/.test(query.slice(at + name.length))) query = query.replace(name, tail(names[0]));
    }
    return query;
  };
  box.oninput = () => {
    const query = box.value.trim().toLowerCase();
    if (!query) {
      all.forEach((e, k) => { e.hidden = false; e.open = was[k]; });
      told.textContent = "";
      return;
    }
    let found = text.map(t => t.includes(query));
    if (!found.includes(true)) { const other = asFirst(query); found = text.map(t => t.includes(other)); }
    const leads = all.map(() => false), within = all.map(() => false);
    for (let k = all.length - 1; k >= 0; k--) if ((found[k] || leads[k]) && above[k] >= 0) leads[above[k]] = true;
    all.forEach((e, k) => {
      within[k] = above[k] >= 0 && (within[above[k]] || (found[above[k]] && !leads[above[k]]));
      e.hidden = !(found[k] || leads[k] || within[k]);
      e.open = leads[k];
    });
    told.textContent = `${found.filter(Boolean).length} found`;
  };
  root.addEventListener("click", event => {
    const code = event.target.closest("code");
    if (code && navigator.clipboard)
      navigator.clipboard.writeText(code.textContent).then(() => { code.title = "copied"; }, () => {});
  });
})()
""".strip()


def html(trace: Trace, depth: int | None = None) -> str:
    """A trace as HTML: a tree that folds, with sizes beside formulas, and what they need and mean.

    Nothing is fetched, and nothing but the search box needs a script. Equal siblings share one entry.

    Args:
        trace: what is shown.
        depth: how deep the tree is open at first; the first row has depth 0. Without it, as deep as a screen allows.

    Raises:
        ParameterError: the depth is negative.
    """
    if depth is not None and depth < 0:
        raise ParameterError("depth", str(depth), "0 or more")
    # Rows whose values were looked at are shown one by one, where that is not too much
    values = any(info.statistics or info.picture for row in trace.rows for info in row.outputs)
    nodes, _ = fitting(trace, ENTRIES, ops=True, fold=not values or len(trace.rows) > ENTRIES)
    page = _Page(trace)
    body = page.tree(nodes, _open_depth(nodes) if depth is None else depth)
    facts = "".join(f"<p>{escape(title)} <code>{escape(text)}</code></p>" for title, text in wording.facts(trace))
    trouble = "<br>".join(map(escape, wording.troubles(trace)))
    name = f"av-{uuid.uuid4().hex[:10]}"
    columns = " ".join(["minmax(0,1fr)", *(f"{width:g}em" for _, width, _ in page.columns)])
    return framed(
        f"<h4>{escape(trace.name or 'trace')}</h4><p>{escape(wording.headline(trace))}</p>{facts}"
        + (f'<p class="bad">{trouble}</p>' if trouble else "")
        + body
        + page.left_out(nodes)
        + _meanings(trace)
        + (f"<script>{SCRIPT.replace('ID', name)}</script>" if nodes else ""),
        f' id="{name}"',
        f"#{name} .t{{min-width:{page.minimum:g}em}}#{name} .r{{grid-template-columns:{columns}}}",
    )


def framed(body: str, attributes: str = "", style: str = "") -> str:
    """Escaped HTML in a block that has its own colours, light and dark."""
    both = STYLE.replace("DARK", _DARK).replace("LIGHT", _LIGHT)
    return f'<div class="av-shapes"{attributes}><style>{both}{style}</style>{body}</div>'


def _open_depth(nodes: list[Node]) -> int:
    """How deep the tree can be open so that it is seen at once."""
    inside = [inner.row for node in nodes for inner in node.walk()]
    depths = [row.depth for row in inside if row.kind == "module"] or [row.depth for row in inside]
    opened = max(depths, default=0)
    while opened > 1 and sum(depth <= opened for depth in depths) > OPEN:
        opened -= 1
    return opened


class _Page:
    """Builds the tree, and keeps account of its columns and of the room for pictures."""

    def __init__(self, trace: Trace):
        self.rows, self.bad, self.room, self.unseen = trace.rows, trace.first_bad, PICTURES, 0
        self.shown: set[int | None] = set()
        outputs = [info for row in trace.rows for info in row.outputs]
        self.formulas = any(info.formulas is not None for info in outputs)
        self.mixed = {name for name in ("dtype", "device") if len({getattr(info, name) for info in outputs}) > 1}
        told = [
            ("size", _width((wording.shape(info.shape) for info in outputs), 6, 20), True),
            ("formula", _width((info.formula for info in outputs), 10, 19), self.formulas),
            ("parameters", 5.5, any(row.parameters for row in trace.rows)),
            ("FLOPs", 5, any(row.flops != 0 for row in trace.rows)),
            ("memory", 5.5, any(row.bytes != 0 for row in trace.rows)),
            ("time", 5, any(row.seconds is not None for row in trace.rows)),
            (
                "source",
                _width((wording.place(row.source) for row in trace.rows), 6, 11.5),
                any(row.source for row in trace.rows),
            ),
        ]
        self.columns = [(title, width, title in FIGURES) for title, width, tells in told if tells]
        self.minimum = 11.5 + sum(width + 0.8 for _, width, _ in self.columns)

    def tree(self, nodes: list[Node], opened: int) -> str:
        if not nodes:
            return ""
        head = "".join(f"<span{' class=h' if figure else ''}>{title}</span> " for title, _, figure in self.columns)
        rows = self.entries(nodes, opened)
        return f'<div class="t"><div class="r head"><span>module or operation</span> {head}</div>{rows}</div>'

    def entries(self, nodes: list[Node], opened: int) -> str:
        """Rows in turn. Operations in a row between modules share a line that opens."""
        modules = any(node.row.kind == "module" for node in nodes)
        shown = []
        for apart, group in groupby(nodes, lambda node: self.is_aside(node) and modules):
            several = list(group)
            inner = "".join(self.entry(node, opened) for node in several)
            if apart and len(several) > 2:
                count = wording.many(sum(node.times for node in several), "operation")
                names = f"{several[0].name} … {several[-1].name}"
                cells = [f"{escape(names)} <small>{count}</small>"]
                for last in several[-1].row.outputs[:1]:  # what flows on
                    cells += [escape(wording.shape(last.shape)), *([_formula(last)] if self.formulas else [])]
                head = " ".join(f"<span>{cell}</span>" for cell in cells)
                inner = f'<details class="o"><summary class="r">{head}</summary><div class="i">{inner}</div></details>'
            shown.append(inner)
        return "".join(shown)

    def is_aside(self, node: Node) -> bool:
        """Whether it is an operation that nothing is wrong with."""
        return node.row.kind == "op" and not node.row.open and node.row is not self.bad and not node.skipped

    def entry(self, node: Node, opened: int) -> str:
        row = node.row
        kinds = "".join([" o" * (row.kind == "op"), " e" * (row.open or row is self.bad)]).strip()
        panel = self.panel(node)  # before those inside, so that the picture of what both give is here
        inner = self.entries(node.inner, opened)
        paths = " ".join(other.path for other in node.alike) if row.kind == "module" and node.alike else ""
        attributes = (
            (f' class="{kinds}"' if kinds else "")
            + (f' data-m="{escape(paths)}"' if paths else "")
            + " open" * (row.depth < opened and bool(node.inner))
        )
        gap = f'<div class="p">… {wording.many(node.skipped, "row")} …</div>' if node.skipped else ""
        return (
            f'{gap}<details{attributes}><summary class="r">{self.cells(node)}</summary>'
            f'<div class="i">{panel}{inner}</div></details>'
        )

    def cells(self, node: Node) -> str:
        row = node.row
        kind = f" <small>{escape(row.name)}</small>" if row.kind == "module" and row.name != node.name else ""
        (size, formula), *others = [
            (escape(wording.shape(info.shape)), _formula(info)) for _, info in wording.together(row.outputs)
        ] or [("failed" if row.open else "no tensor", "")]
        texts = {
            "size": size,
            "formula": formula,
            "parameters": parameters(node),
            "FLOPs": wording.flops(row),
            "memory": wording.memory(row.bytes),
            "time": wording.seconds(row.seconds),
            "source": _place(row, None if row.parent is None else self.rows[row.parent]),
        }
        classes = {title: " class=f" for title in FIGURES} | {"source": " class=w"}
        cells = "".join(f"<span{classes.get(title, '')}>{texts[title]}</span> " for title, _, _ in self.columns)
        more = "".join(  # each on a line of its own, in the columns of sizes and formulas
            f"<span class=n>{size}</span> <span>{formula if self.formulas else ''}</span> " for size, formula in others
        )
        return f"<span>{escape(node.label)}{kind}</span> {cells}{more}"

    def panel(self, node: Node) -> str:
        """What is known of a row beside its columns."""
        row = node.row
        path = row.path + (f" #{row.call}" if row.call > 1 else "")
        parts = [f"<code>{escape(path)}</code>"] if path and row.kind == "module" else []
        if row.inputs:
            parts.append(f"from <b>{'; '.join(escape(wording.tensor(info)) for _, info in _some(row.inputs))}</b>")
        if len(row.outputs) > 1 or any(info.path for info in row.outputs):
            given = "; ".join(f"{name} {wording.shape(info.shape)}" for name, info in _some(row.outputs))
            parts.append(f"gives <b>{escape(given)}</b>")
        for name in sorted(self.mixed):
            values = dict.fromkeys(getattr(info, name) for info in row.outputs)
            parts += [escape(", ".join(values))] if values else []
        if row.source and row.source.code:
            parts.append(f"<b>{escape(row.source.code)}</b>")
        if row.error:
            parts.append(f"failed: {escape(row.error)}")
        values = "".join(self.values(info) for info in row.outputs[:8])
        whose = f"values of {escape(node.name)}: " if values and node.alike else ""
        text = " · ".join(parts) + (f"<div>{whose}{values}</div>" if values else "")
        return f'<div class="p">{text}</div>' if text else ""

    def values(self, info: TensorInfo) -> str:
        shown = ""
        if info.picture and (info.identity is None or info.identity not in self.shown):  # each tensor once
            self.shown.add(info.identity)
            shown = image(info.picture)
            self.room -= len(shown)
            if self.room < 0:
                shown, self.unseen = "", self.unseen + 1
        told = f"{escape(info.path)} {statistics(info.statistics)}".strip() if info.statistics else ""
        return f"<div>{shown}{told}</div>" if shown or told else ""

    def left_out(self, nodes: list[Node]) -> str:
        """What the page does not show, in words."""
        hidden = hidden_in(nodes)
        told = []
        if any(inner.alike for node in nodes for inner in node.walk()):
            told.append("Rows that are alike share one line, with the figures of one of them.")
        if hidden:
            told.append(f"Not shown: {wording.many(hidden, 'row')}; to_json() and table(depth=...) have them.")
        if self.unseen:
            told.append(f"Left out, so that the page stays small: {wording.many(self.unseen, 'picture')}.")
        return "".join(f"<p>{sentence}</p>" for sentence in told)


def statistics(values: Statistics) -> str:
    """Statistics as escaped text."""
    if values.min is None:
        told = "no finite value"
    else:
        told = (
            f"{wording.number(values.min)} … {wording.number(values.max)}, "
            f"mean {wording.number(values.mean)}, std {wording.number(values.std)}"
        )
    bad = [f"{n:,} {kind}" for n, kind in ((values.nan, "NaN"), (values.inf, "infinite")) if n]
    return told + (f", <b>{' and '.join(bad)}</b>, the first at {values.first_bad}" if bad else "")


def _width(texts: Iterable[str], least: float | int, most: float | int) -> float | int:
    """Of a column, in em, such that most texts fit on one line."""
    return min(most, max(least, round(0.62 * max(map(len, texts), default=0), 1)))


def _some(infos: Iterable[TensorInfo]) -> list[tuple[str, TensorInfo]]:
    """The first few of them."""
    return wording.together(infos)[:8]


def _place(row: Row, outer: Row | None) -> str:
    """The line, and its file where that is not the one of the row around it."""
    if row.source is None:
        return ""
    same = outer is not None and outer.source is not None and outer.source.file == row.source.file
    shown = f":{row.source.line}" if same else wording.place(row.source)
    return f'<span title="{escape(str(row.source))}">{escape(shown)}</span>'


def _formula(info: TensorInfo) -> str:
    """The formulas of all axes, with their meaning as a title."""
    meanings = [f"{f}: {f.meaning()}" for f in info.formulas or () if f is not None and _is_told(f)]
    title = f' title="{escape("; ".join(dict.fromkeys(meanings)))}"' if meanings else ""
    return f"<span{title}>{escape(info.formula)}</span>"


def _is_told(formula) -> bool:
    """Whether there is something to say of a formula: of a name alone there is not."""
    return bool(formula.names) and not str(formula).isidentifier() and bool(formula.meaning())


def _meanings(trace: Trace) -> str:
    """Each formula once, with its size here, its meaning, and where it is first seen."""
    found: dict[str, tuple] = {}
    for row in trace.rows:
        for info in row.outputs:
            for formula, size in zip(info.formulas or (), info.shape, strict=False):
                if formula is not None and formula.names and not str(formula).isidentifier():
                    found.setdefault(str(formula), (formula, size, row))
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(text)}</td><td>{'?' if size is None else size}</td><td>{escape(formula.meaning())}</td>"
        f"<td>{escape(wording.where(row))}</td></tr>"
        for text, (formula, size, row) in list(found.items())[:60]
    )
    more = f"<p>and {len(found) - 60:,} more</p>" if len(found) > 60 else ""
    head = "<tr><th>formula</th><th>here</th><th>in words</th><th>first in</th></tr>"
    return f'<details class="m"><summary>What the formulas mean</summary><table>{head}{rows}</table>{more}</details>'

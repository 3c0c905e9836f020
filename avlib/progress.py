"""Progress bars whose last state stays in a saved notebook."""

from __future__ import annotations

import html
import io
import sys

from tqdm import tqdm

_MEASURED = 5  # steps after which the rest is estimated
_TEXT = "{desc}{n_fmt} of {total_fmt}, {elapsed}{left}, {rate_fmt}{postfix}"
_LINE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{left}, {rate_fmt}{postfix}]"


class Bar(tqdm):
    """tqdm as HTML in a notebook, which needs no widgets, and as text elsewhere."""

    def __init__(self, *things, **how):
        ipython = sys.modules.get("IPython")
        self.in_kernel, self.handle = hasattr(ipython and ipython.get_ipython(), "kernel"), None
        if self.in_kernel:
            how |= {"file": io.StringIO(), "mininterval": 0.5}
        super().__init__(*things, **{"bar_format": _LINE} | how)

    @property
    def format_dict(self) -> dict:
        """State of a bar; `left` is the time that the rest will take, measured on this machine after five steps."""
        found, done, left = super().format_dict, self.n - self.initial, ""
        if self.total and self.n < self.total:
            left = ", measuring"
            if done >= _MEASURED:
                left = f", about {spoken((self.total - self.n) * found['elapsed'] / done)} left, measured"
        return found | {"left": left}

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the present state, in place of the one before."""
        if not self.in_kernel:
            super().display(msg, pos)
            return
        from IPython.display import HTML, display

        text = html.escape(self.format_meter(**self.format_dict | {"bar_format": _TEXT}))
        whole = f' max="{self.total}" value="{self.n}"' if self.total else ""
        shown = HTML(f'<progress{whole} style="width:14em" aria-label="{html.escape(self.desc)}"></progress> {text}')
        if self.handle is None:
            self.handle = display(shown, display_id=True)
        else:
            self.handle.update(shown)


def seconds_bar(name: str, seconds: float, shown: bool) -> Bar:
    """Return a bar of seconds of sound, which leaves nothing behind."""
    form = "{desc} {percentage:.0f} % {bar} {n:.0f} of {total:.0f} s [{elapsed}, {remaining} left]"
    return Bar(desc=name, total=seconds, bar_format=form, disable=not shown, leave=False)


def spoken(seconds: float | int) -> str:
    """Return a time as one says it: "40 s", "3 min", "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

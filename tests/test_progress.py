import io
import re
from types import SimpleNamespace

import IPython
import pytest

from avlib.progress import Bar


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show, one string for each update of one output."""
    updates = []

    class Handle:
        def update(self, shown):
            updates.append(shown.data)

    def display(shown, display_id):
        updates.append(shown.data)
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", display)
    return updates


def test_a_notebook_keeps_the_last_state_without_a_widget(shown, capsys):
    with Bar(range(4), desc="reading <files>") as bar:
        for _ in bar:
            bar.set_postfix({"loss": "0.5", "a second one": "12"}, refresh=False)
    assert re.search(r'<progress max="4" value="0" style="width:14em" aria-label="reading &lt;files&gt;">', shown[0])
    assert 'value="4"' in shown[-1] and "4 of 4" in shown[-1] and "loss=0.5, a second one=12" in shown[-1]
    assert "<progress" not in "".join(capsys.readouterr())


def test_text_elsewhere_and_nothing_where_it_is_off(shown, monkeypatch):
    assert list(Bar(range(3), disable=True)) == [0, 1, 2] and not shown
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    file = io.StringIO()
    assert list(Bar(range(3), file=file, desc="reading")) == [0, 1, 2]
    assert "reading: 100%" in file.getvalue() and not shown

import io
import re
from types import SimpleNamespace

import IPython
import pytest

from avlib import progress
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


def test_the_time_left_is_measured_after_five_steps(shown, monkeypatch):
    """A step takes ten seconds: of twenty the fifteen that are left take 150 s, said as minutes."""
    now = [0.0]
    with Bar(total=20, desc="training") as bar:
        monkeypatch.setattr(bar, "_time", lambda: now[0])
        bar.start_t = bar.last_print_t = 0.0
        texts = []
        for _ in range(20):
            now[0] += 10
            bar.update()
            bar.refresh()
            texts.append(shown[-1])
    assert all("measuring" in text and "left" not in text for text in texts[:4])
    assert "about 2 min left, measured" in texts[4] and "about 60 s left, measured" in texts[13]
    assert "left" not in texts[-1] and "measuring" not in texts[-1]
    assert [progress.spoken(seconds) for seconds in (0.4, 89, 90, 5399, 5400)] == [
        "0 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
    ]


def test_a_resumed_bar_counts_its_own_steps(shown, monkeypatch):
    with Bar(total=100, initial=90) as bar:
        monkeypatch.setattr(bar, "_time", lambda: 30.0)
        bar.start_t = 0.0
        bar.update(5)
        bar.refresh()
    assert "about 30 s left, measured" in shown[-1]

"""What all systems share: fields that are set by name, and work that is done once."""

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from avlib import once, systems
from avlib.errors import ParameterError


@dataclass(frozen=True)
class Part:
    steps: int = 10
    rate: float | int = 0.5
    betas: Sequence[float | int] = (0.9, 0.95)
    groups: Mapping[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    width: int = 8
    heads: int = 2

    def __post_init__(self):
        if self.width % self.heads:
            raise ParameterError("width", f"{self.width}", f"a multiple of {self.heads}")


@dataclass(frozen=True)
class Whole:
    name: str = "a"
    on: bool = False
    limit: int | None = None
    network: Network = field(default_factory=Network)
    first: Part = field(default_factory=Part)
    second: Part = field(default_factory=Part)


def test_a_name_sets_every_field_of_that_name_and_a_longer_name_one():
    whole = systems.changed(Whole(), {"second.steps": 3, "steps": 5, "name": "b"})
    assert (whole.first.steps, whole.second.steps, whole.name) == (5, 3, "b")
    assert systems.changed(Whole(), {"second": {"steps": 3}}) == systems.changed(Whole(), {"second.steps": 3})
    assert systems.changed(Whole(), {}) == Whole()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "7", 7),
        ("rate", "1e-3", 1e-3),
        ("rate", ".3", 0.3),
        ("rate", "-.5", -0.5),
        ("betas", "[0.5, 0.6]", (0.5, 0.6)),
        ("betas", "0.5, 0.6", (0.5, 0.6)),
        ("groups", '{"head": 10}', {"head": 10}),
        ("groups", {"head": 10}, {"head": 10}),
    ],
)
def test_text_is_read_as_what_the_field_holds(name, text, value):
    assert getattr(systems.changed(Whole(), {name: text}).first, name) == value


def test_text_of_other_fields():
    whole = systems.changed(Whole(), {"on": "true", "limit": "4", "name": "3"})
    assert (whole.on, whole.limit, whole.name) == (True, 4, "3")
    assert systems.changed(whole, {"limit": "none"}).limit is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stps": 3}, "stps: no such parameter.*Did you mean 'steps'"),
        ({"secnd.steps": 3}, "Did you mean 'second.steps'"),
        ({"first": 3}, "first: no such parameter"),
        ({"steps": 0.5}, "steps: found float 0.5; expected int"),
        ({"steps": True}, "steps: found bool True"),
        ({"steps": "many"}, "steps: found str 'many'"),
        ({"rate": [1]}, "rate: found list"),
        ({"on": "yes"}, "on: found str 'yes'; expected bool"),
        ({"groups": 3}, "groups: found int 3"),
        ({"width": 9}, "width: 9; expected a multiple of 2"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        systems.changed(Whole(), values)


def test_values_that_only_fit_together_are_checked_together():
    assert systems.changed(Whole(), {"width": 9, "heads": 3}).network == Network(9, 3)


def test_the_systems_are_listed():
    assert "cav_mae" in systems.names()


# Work that is done once


def count_and_add(tmp_path, recipe, fail=False):
    """Add 1 to a counter below tmp_path where the work is really done, and give what lies in the cache."""

    def make(progress):
        with (tmp_path / "made").open("a") as file:
            file.write("x")
        if fail:
            (progress / "half").write_text("half")
            raise KeyboardInterrupt
        return (progress / "half").exists()

    return systems.done_once(
        "test", "thing", recipe, make, lambda was, path: path.write_text(str(was)), source="avlib.clips"
    )


def test_work_is_done_once_for_each_recipe(tmp_path):
    first = count_and_add(tmp_path, ["a", 1])
    assert count_and_add(tmp_path, ["a", 1]) == first != count_and_add(tmp_path, ["a", 2])
    assert (tmp_path / "made").read_text() == "xx"


def test_work_goes_on_from_what_an_interrupted_one_left(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        count_and_add(tmp_path, "interrupted", fail=True)
    path = count_and_add(tmp_path, "interrupted")
    assert path.read_text() == "True"  # it saw the half
    assert [other.name for other in path.parent.iterdir() if other.suffix != ".lock"] == ["result"]


TWO = """
import sys, time
from pathlib import Path
from avlib import once, systems

def make(progress):
    print("made", flush=True)
    time.sleep(1)
    return "done"

path = systems.done_once("test", "two", {}, make, lambda text, path: path.write_text(text), source="avlib.clips")
print(path.read_text())
"""


def test_two_processes_at_once_do_it_once():
    running = [subprocess.Popen([sys.executable, "-c", TWO], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].split() for process in running)
    assert said == [["done"], ["made", "done"]]


def module(folder, name, text):
    """A module of avlib that lies elsewhere, as `sys.modules` has it once it is imported."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(f"avlib.{name}", path)
    return importlib.util.module_from_spec(spec)


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The mark of `avlib.follows`, which imports `avlib.follower`, with the text of the latter."""

    def mark_with(text):
        monkeypatch.setitem(sys.modules, "avlib.follower", module(tmp_path, "follower", text))
        follows = module(tmp_path, "follows", "from .follower import f\nfrom . import cache, errors\n")
        monkeypatch.setitem(sys.modules, "avlib.follows", follows)
        once._code.cache_clear()
        once.source_mark.cache_clear()
        return once.source_mark(("avlib.follows",))

    yield mark_with
    once._code.cache_clear()
    once.source_mark.cache_clear()


def test_code_makes_another_mark_and_comments_and_docstrings_do_not(mark):
    before = mark("def f():\n    return 1\n")
    assert mark('"""About."""\n# why\n\ndef f():\n    """Return 1."""\n    return 1\n') == before
    assert mark("def f():\n    return 2\n") != before
    assert mark("class C:\n    pass\n") != before


def test_a_module_that_is_not_there_is_no_source():
    with pytest.raises(ModuleNotFoundError, match=r"no module avlib\.nothing"):
        once.source_mark(("avlib.clips", "avlib.nothing"))


@pytest.mark.parametrize("system", systems.names())
def test_a_training_follows_from_its_data_its_networks_and_the_loop(system, monkeypatch):
    """And from no other row, nor from how it is shown."""
    seen, code = [], once._code
    monkeypatch.setattr(once, "_code", lambda path, name: seen.append(name) or code(path, name))
    once.source_mark.cache_clear()
    trained = importlib.import_module(f"avlib.systems.{system}").trained
    once.source_mark((trained.__module__, "avlib.training"))
    once.source_mark.cache_clear()
    for part in ("clips", "datasets", "features", "media", "models", "training"):
        assert any(name.startswith(f"avlib.{part}") for name in seen), part
    others = set(systems.names()) - {system}
    assert not [name for name in seen for other in others if other in name.split(".")]
    assert not [name for name in seen if name.split(".")[1] in ("view", "workbook", "shapes")]


def test_settings_that_change_no_result_are_not_in_a_recipe():
    from avlib.settings import recipe
    from avlib.training import Settings

    assert recipe(Settings(workers=3, log_every=2, save_every=5)) == recipe(Settings())
    assert recipe(Settings(seed=1)) != recipe(Settings())


def test_a_file_that_is_written_anew_is_another(tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("models/a", "models/b", "c"):
        (tmp_path / name).write_text(name)
    given = [str(tmp_path / "models"), tmp_path / "c", tmp_path / "missing", "", "openai/whisper-base"]
    first = systems.written(given)
    assert [name for name, *_ in first] == [str(tmp_path / name) for name in ("models/a", "models/b", "c")]
    assert systems.written(given) == first
    os.utime(tmp_path / "models/b", ns=(0, 0))
    assert [one == other for one, other in zip(first, systems.written(given), strict=True)] == [True, False, True]

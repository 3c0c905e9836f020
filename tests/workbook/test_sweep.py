"""Sweeps: grids that are refused, points that are run once whatever happens to workers, and what they leave."""

import argparse
import csv
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from small_notebooks import CHECK, write

from avlib import cluster
from avlib.__main__ import main
from avlib.errors import CacheError, ParameterError
from avlib.workbook import sweep

PARAMETERS = """\
number: int = 0  # 0 or more: a number
rate: float = 0.5  # 0 to 1: another one
name: str = "a"  # any text
layers: list[int] = [1, 2]  # which layers
settings: str = ""  # a JSON or YAML file with values for these
out_dir: str = ""  # a folder"""
FIGURES = """\
workbook.measured("third", (number + rate) / 3, "s")
workbook.measured("number", number)
workbook.measured("third", 1, "s")"""
FAILS = "if name == 'bad':\n    raise ValueError('it is bad')"


@pytest.fixture(scope="module", autouse=True)
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    write(folder / "11_first.ipynb", CHECK, FIGURES, FAILS, parameters=PARAMETERS)
    write(folder / "12_second.ipynb", CHECK, parameters=PARAMETERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVLIB_NOTEBOOKS", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def signals():
    """The command line answers signals in its own way; a test's process must not keep that."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    sweep.add_command(parser.add_subparsers())
    return parser.parse_args(["sweep", *words])


def values(*words: str) -> list[tuple[str, ...]]:
    """The values of all points of a grid."""
    return [tuple(point.values.values()) for point in sweep._points(options(*words))[1].values()]


# Grids


def test_a_grid_has_all_pairs():
    assert values("11", "-p", "number=0:2", "-p", "rate=.25,.5") == [
        ("0", ".25"),
        ("0", ".5"),
        ("1", ".25"),
        ("1", ".5"),
    ]
    assert values("11", "-p", "number=4:0:-2") == [("4",), ("2",)]
    assert values("11", "-p", "number=1,2", "-p", "rate=.1,.2", "-p", "name=x", "--zip") == [
        ("1", ".1", "x"),
        ("2", ".2", "x"),
    ]


def test_commas_inside_of_a_value():
    assert values("11", "-p", 'name="a, b",c') == [("a, b",), ("c",)]
    assert values("11", "-p", "layers=[1, 2],[3]") == [("[1, 2]",), ("[3]",)]
    assert values("11", "-p", "name=") == [("",)]


def test_drawn_points_are_different_and_the_same_each_time():
    words = ("11", "-p", "number=0:100000", "-p", "rate=0,1", "--random", "50")
    drawn = values(*words)
    assert len(set(drawn)) == 50 and drawn == values(*words) and len({number for number, _ in drawn}) > 40
    assert {rate for _, rate in drawn} == {"0", "1"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("11", "-p: an empty grid; expected at least one -p NAME=VALUES"),
        ("11 -p number=", "number: found str ''"),
        ("11 -p number=3:3", "number: '3:3' has an empty value"),
        ("11 -p number=0:3:0", "number: '0:3:0' has an empty value"),
        ("11 -p number=1,,2", "number: '1,,2' has an empty value"),
        ("11 -p layers=[1", "layers: [1; expected lists as in [1, 2],[3, 4]"),
        ("11 -p number", "-p number: no name and values; expected -p NAME=VALUE,VALUE"),
        ("11 -p number=0,1 -p number=2", "number: is given twice; expected one -p with all its values"),
        ("11 -p number=0,1,0", "number: 0 comes twice; expected each value once"),
        ("11 -p rate=0.5,.50", "-p: rate=.50 is the same as rate=0.5; expected each point once"),
        ("11 -p numbr=1", "numbr: no such parameter in 11; expected one of number"),
        ("11 -p number=1,x", "number: found str 'x' (notebook 11); expected int, 0 or more"),
        ("11 -p rate=0,1.5", "rate: found 1.5 (notebook 11); expected 0 to 1"),
        ("11 -p settings=gone.json", "settings: no such file or folder: gone.json"),
        ("11 -p out_dir=/tmp", "out_dir: each point has a folder of its own. Leave it out."),
        ("11 -p number=0:10001", "-p: a grid of 10,001 points; expected at most 10,000. Add --yes, or --random N."),
        ("11 -p number=0:100000000000 -p rate=0,1", "-p: a grid of 200,000,000,000 points"),
        ("11 -p number=0,1 -p rate=0,.1,.2 --zip", "--zip: number has 2 values; expected 3, or one for all"),
        ("11 -p number=0,1 --random 3", "--random: 3; expected 1 to 2, the points of the grid"),
        ("11 12 -p number=0", "11 12: more than one; expected one notebook"),
        ("99 -p number=0", "99: means no notebook"),
        ("train nothing -p seed=0", "SYSTEM: 'nothing' is unknown; expected one of audiotoken"),
        ("train -p seed=0", "SYSTEM: '' is unknown"),
        ("train cav_mae -p sed=0", "sed: no such parameter; expected one of"),
        ("train cav_mae -p mask_ratio_audio=.5,1.5", "mask_ratio_audio: 1.5; expected"),
        ("train cav_mae -p size=huge", "size: 'huge'; expected \"tiny\" or \"full\""),
        ("11 -p number=0 --jobs 0", "--jobs: 0; expected a whole number from 1"),
        ("11 -p number=0 --retries -1", "--retries: -1; expected a whole number from 0"),
        ("11 -p number=0 --timeout 0", "--timeout: 0.0; expected a number from 0.001"),
        ("11 -p number=0 --memory nan", "--memory: nan; expected a number from 0.001"),
        ("11 -p number=0 --scheduler tcp://a:1 --cluster b", "--scheduler: given together with --cluster"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_starts(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words.split(" "), "--out", "results"]) == 2
    said = capsys.readouterr().err
    assert told in said.splitlines()[-1] and not list(tmp_path.glob("results/points/*"))


def test_more_points_with_yes(monkeypatch):
    assert sweep._MOST == 10_000
    monkeypatch.setattr(sweep, "_MOST", 10)
    assert len(values("11", "-p", "number=0:11", "--yes")) == 11
    with pytest.raises(ParameterError, match="a grid of 11 points; expected at most 10"):
        values("11", "-p", "number=0:11")


# What a point follows from


def keys(*words: str) -> list[str]:
    return list(sweep._points(options(*words))[1])


def test_a_point_is_known_by_all_that_it_follows_from(notebooks, tmp_path, monkeypatch):
    before = keys("11", "-p", "number=0,1")
    assert keys("11", "-p", "number=1,0,2")[:2] == before[::-1]  # whatever the other values, and their order
    file = tmp_path / "a.json"
    file.write_text('{"rate": 0.25}')
    first = keys("11", "-p", f"settings={file}")
    file.write_text('{"rate": 0.125}')
    assert keys("11", "-p", f"settings={file}") != first
    monkeypatch.setattr(sweep.once, "source_mark", lambda modules: "other code")
    assert not set(keys("11", "-p", "number=0,1")) & set(before)
    monkeypatch.undo()
    text = (notebooks / "11_first.ipynb").read_text()
    monkeypatch.setenv("AVLIB_NOTEBOOKS", str(tmp_path))
    (tmp_path / "11_first.ipynb").write_text(text.replace("A sentence.", "Another sentence."))
    assert keys("11", "-p", "number=0,1") == before
    (tmp_path / "11_first.ipynb").write_text(text.replace("/ 3", "/ 4"))
    assert not set(keys("11", "-p", "number=0,1")) & set(before)


def test_the_command_of_a_training(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("steps: 3")
    words = ("train", "cav_mae", "-p", "seed=0:2", "-p", f"settings={file}", "-p", "mask_ratio_audio=.5")
    target, points = sweep._points(options(*words))
    expected = ["train", "cav_mae", "-p", "seed=1", "-p", "mask_ratio_audio=.5", "--settings", str(file)]
    assert target == "train cav_mae" and [point.command for point in points.values()][1] == expected
    assert keys(*words) != keys(*words, "-p", "size=full")


# Folders


def refused(folder: Path, about: dict) -> str:
    with pytest.raises(CacheError) as error, sweep._claimed(folder, about):
        pass
    return str(error.value)


def test_folders_that_are_refused(tmp_path):
    about = {"sweep": "11_first", "parameters": ["number"]}
    with sweep._claimed(tmp_path / "new", about):
        assert "another process sweeps into it" in refused(tmp_path / "new", about)
    with sweep._claimed(tmp_path / "new", about):
        pass
    other = about | {"parameters": ["rate"]}
    assert "has results of another sweep" in refused(tmp_path / "new", other)
    assert "has results of another sweep" in refused(tmp_path / "new", about | {"sweep": "train cav_mae"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    assert "holds other files" in refused(tmp_path / "mine", about)
    (tmp_path / "file").write_text("")
    assert "a folder that can be written" in refused(tmp_path / "file/x", about)


def test_a_full_disk_ends_the_sweep_and_is_no_failure_of_a_point(tmp_path, monkeypatch):
    (tmp_path / "points").mkdir()
    how = {"folder": tmp_path, "seconds": 60.0, "memory": 1.0, "variables": {}, "place": tmp_path}
    point = sweep.Point({"number": "0"}, "abc", ["list"])
    monkeypatch.setattr(sweep.shutil, "disk_usage", lambda _: argparse.Namespace(free=3e6))
    with pytest.raises(CacheError, match=r"3 MB are free; expected at least 100 MB\. Free some space"):
        sweep.run(point, **how)
    monkeypatch.undo()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep, "_watched", lambda *_: (0, "", 0.1))
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CacheError, match="No space left on device"):
        sweep.run(point, **how)
    assert list((tmp_path / "points").iterdir()) == []


EATS = "held = b'1' * (3 * 10**8)"


@pytest.mark.parametrize(
    ("code", "seconds", "memory", "message"),
    [
        ("", 1.0, math.inf, r"ran longer than 1 s"),
        (EATS, 300.0, 0.2, r"took 0\.[23]\d GB of memory; --memory allows 0\.2"),
    ],
)
def test_a_point_that_hangs_or_eats_all_memory_is_ended(code, seconds, memory, message, tmp_path, monkeypatch):
    (tmp_path / "points").mkdir()
    monkeypatch.setattr(sweep, "_CHILD", f"{code}\nprint('begun', flush=True)\nimport time\ntime.sleep(600)")
    point = sweep.Point({"number": "0"}, "abc", ["list"])
    limits = {"seconds": seconds, "memory": memory}
    made = sweep.run(point, folder=tmp_path, variables={}, place=tmp_path, **limits)
    assert made.state == "failed" and re.fullmatch(message, made.message) and made.seconds < 200
    assert sweep._read(tmp_path, "abc") == made and not list(tmp_path.glob("points/.*"))
    assert not [each for each in psutil.Process().children() if "begun" in " ".join(each.cmdline())]


# A sweep as a whole


def start(*words: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "avlib", "sweep", *words, "--jobs", "2", "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def kill_a_worker(process: subprocess.Popen, folder: Path, attempts: set[str]) -> None:
    """Kill the worker of a try that was not seen before, which its folder names."""
    while not (
        new := [each for each in folder.glob("points/.unfinished-*/run.json") if each.parent.name not in attempts]
    ):
        assert process.poll() is None
        time.sleep(0.05)
    name = new[0].parent.name
    attempts.add(name)
    worker = psutil.Process(int(name.split("-")[1]))
    assert process.pid in [parent.pid for parent in worker.parents()]
    family = worker.children(recursive=True)
    assert family
    worker.kill()
    psutil.wait_procs(family, timeout=20)
    assert not any(each.is_running() and each.status() != "zombie" for each in family)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_a_sweep_of_a_notebook_with_a_worker_killed(tmp_path, capsys):
    words = ("11", "-p", "number=7", "-p", "rate=.1", "-p", "name=a,bad")
    process = start(*words, folder=tmp_path / "out")
    kill_a_worker(process, tmp_path / "out", set())
    said, progress = process.communicate(timeout=150)
    assert process.returncode == 1 and "1 of 2 points passed" in said and "ValueError: it is bad" in said
    lines = [line for line in progress.splitlines() if " done, " in line]
    assert len(lines) == 2 and lines[1].startswith("2 of 2 done, 0 running, 1 failed, 00:00 left | number=7 rate=.1")
    good, bad = table(tmp_path / "out")
    for row in (good, bad):
        assert float(row["third (s)"]) == 7.1 / 3 and row["third (s) 2"] == "1" and row["number (measured)"] == "7"
    assert (good["number"], good["rate"], good["name"], good["state"]) == ("7", ".1", "a", "passed")
    assert (bad["state"], bad["message"]) == ("failed", "ValueError: it is bad")
    folders = sorted(each.name for each in (tmp_path / "out/points").iterdir())
    assert [f"points/{name}" for name in folders] == sorted(row["folder"] for row in (good, bad))
    files = {each.name for each in (tmp_path / "out" / good["folder"]).iterdir()}
    assert {"11_first.ipynb", "11_first.html", "point.json", "log.txt", "run.json"} <= files
    page = (tmp_path / "out/index.html").read_text()
    assert f"{good['folder']}/11_first.html" in page and "ValueError: it is bad" in page

    # Again: what passed is not run again, and a grid of the same parameters may grow.
    again = ("sweep", *words[:-1], "name=a,bad,c", "--out", str(tmp_path / "out"), "--dry-run")
    assert main(list(again)) == 0 and "3 points, of which 1 are done" in capsys.readouterr().err


def test_the_page_has_means_and_ranges_over_seeds(tmp_path):
    made = []
    for seed, rate, name in itertools.product(range(3), range(1, 11), "ab"):
        values, value = (
            {"seed": f"{seed}", "rate": f"0.{rate:02}", "name": name},
            rate * 10 + seed**2 + 100 * (name == "b"),
        )
        made.append(sweep.Point(values, f"{seed}{rate}{name}", [], "passed", figures={"loss": value, "odd": math.nan}))
    made.append(sweep.Point({"seed": "3", "rate": "0.01", "name": "a"}, "x", [], "failed", "<b>lost</b>"))
    page = sweep._report(tmp_path, "11", made).read_text()
    assert "60 passed, 1 failed" in page and "&lt;b&gt;lost&lt;/b&gt;" in page and "<b>lost" not in page
    told = re.findall(r"<title>(.*?)</title>", page.replace("\n", ""))[1:]
    assert len(told) == 10 * 2 + 2 * 10  # by rate a line for each name, by name one for each rate
    assert "rate = 0.02, name = a: mean 21.67, 20 to 24, 3 points" in told  # of 20, 21 and 24
    assert "name = b, rate = 0.09: mean 191.7, 190 to 194, 3 points" in told
    assert "odd by rate" not in page and page.count("<svg") == 2
    (row,) = [each for each in table(tmp_path) if each["folder"] == "points/29b"]
    assert row["loss"] == "194" and row["odd"] == "nan"


def square(number: int) -> tuple[int, int, int]:
    """A task whose file says how often it ended."""
    time.sleep(0.05)
    with (Path("ended") / str(number)).open("a") as file:
        file.write("x")
    return number, number**2, os.getpid()


def test_nothing_is_lost_and_nothing_twice_when_workers_are_killed(tmp_path, monkeypatch, kills=3):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ended").mkdir()
    me, ended, killed = psutil.Process(), [], 0
    with cluster.connected(options("11", "--jobs", "2", "--retries", "50"), tmp_path) as (completed, here):
        assert here == 2
        for count, (thing, (number, result, pid), running) in enumerate(completed(square, iter(range(20 * kills)))):
            ended.append(thing)
            assert (number, result) == (thing, thing * thing) and 0 <= running <= 2
            if count % 12 == 5 and killed < kills:
                worker = next((each for each in me.children(recursive=True) if each.pid == pid), None)
                if worker:
                    worker.kill()
                    killed += 1
    assert sorted(ended) == list(range(20 * kills)) and killed == kills
    assert {each.name for each in (tmp_path / "ended").iterdir()} == {str(number) for number in ended}
    assert [each.name() for each in me.children(recursive=True) if "spawn_main" in " ".join(each.cmdline())] == []


@pytest.mark.long
def test_twenty_kills(tmp_path, monkeypatch):
    test_nothing_is_lost_and_nothing_twice_when_workers_are_killed(tmp_path, monkeypatch, kills=20)

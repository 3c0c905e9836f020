import pytest
from small_notebooks import write

from avlib import workbook
from avlib.errors import NotebookError
from avlib.workbook.notebooks import Notebook, choose


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("00_start_here", "1_cav_mae/11_cav_mae_preprocessing", "1_cav_mae/12_cav_mae_shapes", "60_more"):
        write(tmp_path / "notebooks" / f"{name}.ipynb")
    write(tmp_path / "notebooks/.ipynb_checkpoints/11_old.ipynb")
    monkeypatch.setenv("AVLIB_NOTEBOOKS", str(tmp_path / "notebooks"))
    return tmp_path / "notebooks"


def test_numbers_rows_and_paths(folder, monkeypatch):
    def numbers(*names):
        return [notebook.number for notebook in choose(list(names))]

    assert numbers() == ["00", "11", "12", "60"]
    assert numbers("12", "11", "12") == ["12", "11"]
    assert numbers("1") == ["11", "12"]
    assert numbers("0") == ["00"]
    monkeypatch.chdir(folder)
    assert choose(["60_more.ipynb", "60"]) == [Notebook(folder / "60_more.ipynb")]
    for name in ("13", "2", "111", "x", ""):
        with pytest.raises(NotebookError):
            choose([name])


def test_two_with_one_number(folder):
    write(folder / "2_x/11_other.ipynb")
    with pytest.raises(NotebookError, match="has the number of"):
        workbook.discover()


@pytest.mark.parametrize("name", ["-Copy1", " copy", " (1)", "-Copy1-Copy2"])
def test_copies_are_left_alone(folder, name):
    write(folder / f"1_cav_mae/11_cav_mae_preprocessing{name}.ipynb")
    assert [notebook.number for notebook in workbook.discover()] == ["00", "11", "12", "60"]
    assert workbook.discover()[1].name == "11_cav_mae_preprocessing"
    assert choose(["11"])[0].name == "11_cav_mae_preprocessing"


def test_two_files_of_one_name(folder, tmp_path, monkeypatch):
    with pytest.raises(NotebookError, match="2 notebooks of this name"):
        choose(["60", str(write(tmp_path / "60_more.ipynb"))])
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("AVLIB_NOTEBOOKS", str(tmp_path / "empty"))
    with pytest.raises(NotebookError, match="no notebooks"):
        choose([])


def test_the_table(folder):
    table = workbook.table()
    assert len(table.slots) == 27 and [slot.number for slot in table.slots if slot.exists] == ["00", "11", "12"]
    assert table.rows["Singing-voice conversion"][3].path == folder / "4_svc/44_svc_masking.ipynb"
    assert "[11](1_cav_mae/11_cav_mae_preprocessing.ipynb) | [12]" in table.markdown()
    assert "| 13 |" in table.markdown()
    assert "(notebooks/00_start_here.ipynb)" in workbook.table(folder.parent).markdown()
    assert "[12](1_cav_mae/12_cav_mae_shapes.ipynb)" in table._repr_markdown_()


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("# 11 CAV-MAE: shapes", "CAV-MAE: shapes"),
        ("# 11 · *CAV-MAE*", "CAV-MAE"),
        ("# 5 systems", "5 systems"),
        ("text\n## `a_b` second", "a_b second"),
        ("no heading", "11_a"),
    ],
)
def test_titles(tmp_path, heading, title):
    assert Notebook(write(tmp_path / "11_a.ipynb", title=heading)).title == title

import ast
import itertools

import papermill
import pytest
from small_notebooks import PARAMETERS, write

from avlib.errors import CacheError, NotebookError, ParameterError
from avlib.workbook import discover
from avlib.workbook.notebooks import Notebook
from avlib.workbook.parameters import parse, resolve, system_settings

DECLARED = parse(PARAMETERS)


def one(line: str):
    return next(iter(parse(line).values()))


def test_papermill_reads_the_same(tmp_path):
    ours = Notebook(write(tmp_path / "11_a.ipynb")).parameters
    assert_same(ours, papermill.inspect_notebook(tmp_path / "11_a.ipynb"))


@pytest.mark.parametrize("notebook", discover(), ids=lambda notebook: notebook.name)
def test_papermill_reads_the_same_in_the_workbook(notebook):
    assert_same(notebook.parameters, papermill.inspect_notebook(notebook.path))


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        assert (parameter.type, parameter.help) == (theirs[name]["inferred_type_name"], theirs[name]["help"])
        assert parameter.default == ast.literal_eval(theirs[name]["default"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x = 1  # untyped", "line 1"),
        ("x: int = 1", "no help"),
        ("x: dict = {}  # a type that papermill takes but the command line cannot", "type dict"),
        ("x: str | None = None  # papermill does not see it", "type str | None"),
        ('x: str = "#"  # papermill cuts it there', "second"),
        ("x: int = 1  # y=2 is not parsed by papermill", "second"),
        ("x: int = 1 + 1  # computed", "line 1"),
        ("x: list[int] = [1,\n 2]  # over two lines", "no help"),
        ("x: int = 1.5  # default of another type", "default"),
        ("x: int = 5  # 1 to 3: default out of range", "default"),
        ("x: int = 1  # a\nx: int = 2  # b", "twice"),
        ("x: int = (  # open", "no Python"),
    ],
)
def test_a_line_that_is_not_of_the_form_is_refused(line, problem):
    with pytest.raises(NotebookError, match=problem.replace("|", r"\|")):
        parse(line, "a cell")


@pytest.mark.parametrize(
    ("line", "good", "bad"),
    [
        ("x: float = 1.0  # 0.1 to 30: range", [0.1, 30, 1], [0.0, 30.1, float("nan"), float("inf")]),
        ("x: float = 1.0  # -1 to 1e2s, with a unit", [-1, 100.0], [-1.1, 101.0]),
        ("x: int = 1  # 1 or more: bound", [1, 99], [0, -1]),
        ("x: int = 1  # 3 or less: bound", [3, -5], [4]),
        ("x: float = 1.0  # above 0: bound that is left out", [1e-9], [0.0]),
        ('x: str = "a"  # "a", "b c" or "": choices', ["a", "b c", ""], ["c", "A"]),
        ("x: int = 8  # 8, 16 or 24: choices", [16], [9]),
        ("x: list[int] = [1]  # 1 to 3: each", [[1, 2, 3], []], [[0], [1, 4]]),
        ("x: int = 5  # 5 things that are no constraint", [-100], []),
    ],
)
def test_the_help_is_the_constraint(line, good, bad):
    parameter = one(line)
    for value in good:
        assert parameter.convert(value) == value
    for value in bad:
        with pytest.raises(ParameterError, match="expected"):
            parameter.convert(value)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("float = 0.0", 5, 5.0),
        ("float = 0.0", "1e-5", 1e-5),
        ("int = 0", "7", 7),
        ("int = 0", "-7", -7),
        ("bool = False", "true", True),
        ("bool = False", "False", False),
        ("str = ''", "007", "007"),
        ("list[int] = []", "[3,4]", [3, 4]),
        ("list[int] = []", "3, 4", [3, 4]),
        ("list[float] = []", [1, 2.5], [1.0, 2.5]),
        ("list[str] = []", "a,b c", ["a", "b c"]),
        ("list[str] = []", "", []),
    ],
)
def test_values_become_the_declared_type(kind, given, value):
    converted = one(f"x: {kind}  # help").convert(given)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("int = 0", True),
        ("int = 0", 1.0),
        ("int = 0", "1.5"),
        ("int = 0", ""),
        ("int = 0", None),
        ("float = 0.0", True),
        ("float = 0.0", "nan"),
        ("bool = False", 1),
        ("bool = False", "1"),
        ("str = ''", 5),
        ("str = ''", None),
        ("list[int] = []", "[3"),
        ("list[int] = []", [1, True]),
        ("list[int] = []", {"a": 1}),
        ("list[str] = []", [1]),
    ],
)
def test_other_types_are_refused(kind, given):
    with pytest.raises(ParameterError, match="x: found"):
        one(f"x: {kind}  # help").convert(given)


def test_misspelt_names_get_the_nearest():
    with pytest.raises(ParameterError, match=r"secnods: no such parameter.*Did you mean 'seconds'"):
        resolve(DECLARED, {"secnods": 1})


TWENTY = ["a: &a [x, x, x, x]"] + [
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]" for a, b in itertools.pairwise("abcdefghijklmnop")
]
BOMB = "\n".join(TWENTY) + "\nseconds: *p"
MERGING_BOMB = BOMB.replace("[x, x, x, x]", "{x: 1}").replace("[*", "{<<: [*").replace("]", "]}")
GOOD = [
    '{"seconds": 5, "size": "full"}',
    "seconds: 5\nsize: full\n",
    '{\n\t"seconds":\t5,\n\t"size": "full"\n}\n',
    '\ufeff{"seconds": 5.0, "size": "full"}',
    "\ufeffseconds: &five 5\nsize: 'full'\nlayers: [*five, *five]\n",
    '{"seconds": 5e0, "size": "full"}',
]


@pytest.mark.parametrize("text", GOOD)
def test_settings_fill_in_and_what_is_passed_wins(tmp_path, text):
    (tmp_path / "s").write_text(text)
    values = resolve(DECLARED, {"settings": str(tmp_path / "s"), "size": "tiny"})
    assert (values["seconds"], values["size"], values["steps"]) == (5.0, "tiny", 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("secnods: 5", "Did you mean 'seconds'"),
        ("seconds: 99", "0.1 to 30"),
        ("[1, 2]", "list"),
        ("{", "cannot be read"),
        ("seconds: !!python/object/apply:os.getcwd []", "cannot be read"),
        (None, "no such file"),
        (BOMB, "more than 100,000 values"),
        (MERGING_BOMB, "more than 100,000 values"),
        ("seconds: &a [*a]", "nested deeper than 50"),
        ("&a\nseconds: *a", "nested deeper than 50"),
        ('{"seconds": ' + "[" * 1500, "recursion"),
        ("seconds: " + "[" * 60 + "]" * 60, "nested deeper than 50"),
        ("seconds: 3\nsteps: 3\nseconds: 4", "from line 1 on a name is given twice"),
        ('{"seconds": 3, "seconds": 4}', "given twice"),
        ("null: 3", "is not text"),
        ("fine_tuning:\n  ~: 3", "from line 2 on a name .* is not text"),
        ("true: 3", "is not text"),
        ("[seconds]: 3", "is not text"),
        (f"seconds: {10**400}", "a number of 401 digits"),
        (f"steps: 0x{'f' * 6000}", "a number of 6002 digits"),
        (f"steps: {10**30}", "steps: found int 1000.*expected int"),
        (f"seconds: '{10**400}'", "seconds: found str"),
        ("layers: '" + "[" * 100_000 + "'", r"layers: found str .{200}; expected list"),
        ("steps: [1, 2" + ", 3" * 400_000 + "]", "more than 250,000 characters"),
        (b"name: caf\xe9", "can't decode"),
        (b"name: a\0b", "cannot be read"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_settings_are_refused(tmp_path, text, problem):
    if text:
        (tmp_path / "s").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ParameterError, match=problem):
        resolve(DECLARED, {"settings": str(tmp_path / "s")})


def test_a_settings_file_may_set_what_the_system_knows(tmp_path):
    own = parse('steps: int = 3  # 1 or more: training steps\nsettings: str = ""  # a JSON or YAML file\n')
    path = tmp_path / "s"
    path.write_text("steps: 7\nmask_ratio_audio: 0.6\nfine_tuning: {labelled: 128}\n")
    assert resolve(own, {"settings": str(path)}, system="cav_mae")["steps"] == 7
    assert system_settings(own, str(path), "cav_mae") == {"mask_ratio_audio": 0.6, "fine_tuning": {"labelled": 128}}
    assert system_settings(own, "", "cav_mae") == {}
    path.write_text("mask_ratio_adio: 0.6")
    with pytest.raises(ParameterError, match=r"mask_ratio_adio.*Did you mean 'mask_ratio_audio'"):
        resolve(own, {"settings": str(path)}, system="cav_mae")
    with pytest.raises(ParameterError, match="mask_ratio_adio: no such parameter"):
        resolve(own, {"settings": str(path)})  # no system is declared
    with pytest.raises(NotebookError, match="no system 'cav_mea'"):
        resolve(own, {"settings": str(path)}, system="cav_mea")


def test_files_and_folders(tmp_path):
    with pytest.raises(ParameterError, match="clip: no such file"):
        resolve(DECLARED, {"clip": str(tmp_path / "none.mp4")})
    assert resolve(DECLARED, {"out_dir": str(tmp_path / "a/b")}) and (tmp_path / "a/b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="a folder that can be written"):  # as root, permissions would not stop it
        resolve(DECLARED, {"out_dir": str(tmp_path / "file/below")})


# Other names of a system's settings

SYSTEM = "classification"
ALIASED = 'seconds: float = 3.0  # 0.1 to 30: how much is heard\nsettings: str = ""  # a JSON or YAML file\n'


def test_a_parameter_may_be_given_by_the_name_that_its_system_knows_too(tmp_path):
    own = parse(ALIASED)
    assert resolve(own, {"data_length": "2"}, system=SYSTEM) == {"seconds": 2.0, "settings": ""}
    path = tmp_path / "mine.yaml"
    path.write_text("data_length: 2\nlr: 0.001\nloss: focal\n")
    assert resolve(own, {"settings": str(path)}, system=SYSTEM)["seconds"] == 2.0
    assert system_settings(own, str(path), SYSTEM) == {"learning_rate": 0.001, "loss": "focal"}
    passed = {"settings": str(path), "data_length": 1}
    assert resolve(own, passed, system=SYSTEM)["seconds"] == 1.0, "what is passed wins"


def test_a_parameter_by_both_its_names_is_refused(tmp_path):
    own = parse(ALIASED)
    with pytest.raises(ParameterError, match="given together with"):
        resolve(own, {"data_length": 2, "seconds": 2}, system=SYSTEM)
    path = tmp_path / "mine.yaml"
    path.write_text("data_length: 2\nseconds: 2\n")
    with pytest.raises(ParameterError, match="given together with"):
        resolve(own, {"settings": str(path)}, system=SYSTEM)


def test_run_takes_the_other_names_where_a_notebook_has_them(tmp_path):
    from small_notebooks import write

    from avlib.workbook.notebooks import Notebook
    from avlib.workbook.run import check_parameters

    check = f'workbook.check(globals(), system="{SYSTEM}")'
    one = Notebook(write(tmp_path / "31_a.ipynb", check, parameters=ALIASED))
    other = Notebook(write(tmp_path / "11_b.ipynb"))
    assert check_parameters([one], {"data_length": "2"}) == {one: {"seconds": 2.0}}
    with pytest.raises(ParameterError, match="data_length"):
        check_parameters([one, other], {"data_length": "2"})

"""Tables and folders of recordings, and what their targets, words and ages are in numbers."""

import csv
import math
from pathlib import Path

import pytest

from avlib.datasets.classification import (
    AGES,
    Labels,
    Recording,
    age_index,
    filter_words,
    read_recordings,
    word_index,
    word_list,
)
from avlib.errors import DatasetError, ParameterError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(folder: Path, *rows: tuple, name: str = "table.csv", encoding: str = "utf-8", files: bool = True) -> Path:
    """A table whose first row is the header; an empty file for each path."""
    path = folder / name
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",").writerows(rows)
    if files:
        place = rows[0].index("path")
        touch(folder, *(row[place] for row in rows[1:]))
    return path


def some(*targets: str, words=(), groups=()) -> list[Recording]:
    rows = enumerate(targets)
    return [
        Recording(Path(f"{i}.wav"), target, words[i] if words else "", group=groups[i] if groups else "")
        for i, target in rows
    ]


# Tables


@pytest.mark.parametrize(("name", "encoding"), [("t.csv", "utf-8"), ("t.csv", "utf-8-sig"), ("t.tsv", "utf-8")])
def test_a_table_is_read_with_all_that_it_says(tmp_path, name, encoding):
    header = ("path", "label", "word", "age", "speaker", "split", "note")
    rows = (
        ("a/가위.wav", "정상", " rake", "4.5", "s1", "train", "one, two"),
        ("b.flac", "비정상", "", "nan", "s2", "", ""),
    )
    first, second = read_recordings(table(tmp_path, header, *rows, name=name, encoding=encoding))
    assert first == Recording(tmp_path / "a/가위.wav", "정상", "rake", 4.5, "s1", "s1", "train")
    assert first.row["note"] == "one, two" and list(first.row) == list(header)
    assert second == Recording(tmp_path / "b.flac", "비정상", "", None, "s2", "s2", "") and str(second).endswith(
        "b.flac"
    )


def test_a_table_with_semicolons_has_numbers_with_commas(tmp_path):
    touch(tmp_path, "a, b.wav", "b.wav")
    content = 'path;label;age;word;notes, if any\na, b.wav;0,5;4,5;"one; two";\nb.wav;-,25;4;three, four;1,5,2\n'
    (tmp_path / "t.csv").write_text(content, encoding="utf-8-sig")
    clips = read_recordings(tmp_path / "t.csv")
    assert [(r.path.name, r.target, r.age, r.word) for r in clips] == [
        ("a, b.wav", "0.5", 4.5, "one; two"),
        ("b.wav", "-.25", 4.0, "three, four"),
    ]
    assert clips[1].row["notes, if any"] == "1,5,2"
    assert [Labels.of(clips, "regression").number(clip) for clip in clips] == [0.5, -0.25]
    with pytest.raises(DatasetError, match=r"no column 'labels'; expected one of 'path', 'label'"):
        read_recordings(tmp_path / "t.csv", "labels")


def test_row_11_any_column_is_the_target_and_any_other_column_groups(tmp_path):
    path = table(
        tmp_path, ("path", "Sprache", "Wort", "phrase"), ("a.wav", "de", "ja", "7"), ("b.wav", "en", "no", "7")
    )
    recordings = read_recordings(path, "Sprache", word="Wort", group="phrase")
    assert [(r.target, r.word, r.speaker, r.group) for r in recordings] == [
        ("de", "ja", "", "7"),
        ("en", "no", "", "7"),
    ]
    assert read_recordings(path, "Sprache", word="")[0].word == ""


def test_speakers_who_are_the_target_do_not_group(tmp_path):
    path = table(tmp_path, ("path", "speaker"), ("a.wav", "s"), ("b.wav", "t"))
    assert [(r.target, r.speaker, r.group) for r in read_recordings(path, "speaker")] == [
        ("s", "s", ""),
        ("t", "t", ""),
    ]
    assert [r.group for r in read_recordings(path, "speaker", group="path")] == ["a.wav", "b.wav"]


def test_paths_begin_at_the_folder_of_the_table_or_are_absolute(tmp_path):
    here, there = touch(tmp_path / "here", "x.wav"), touch(tmp_path / "there", "y.wav")
    path = table(here, ("path", "label"), ("x.wav", "a"), (there / "y.wav", "b"), files=False)
    assert [recording.path for recording in read_recordings(path)] == [here / "x.wav", there / "y.wav"]


def test_a_folder_with_a_sub_folder_for_each_class(tmp_path):
    touch(tmp_path, "cat/a.wav", "dog/deep/b.MP3", "dog/film.mp4", "dog/notes.txt", "dog/.hidden.wav", "README.md")
    (tmp_path / "dog" / "odd.wav").mkdir()
    recordings = read_recordings(tmp_path)
    expected = [("cat/a.wav", "cat"), ("dog/deep/b.MP3", "dog"), ("dog/film.mp4", "dog")]
    assert [(str(r.path.relative_to(tmp_path)), r.target) for r in recordings] == expected
    assert recordings[0].row == {"path": "cat/a.wav", "label": "cat"} and not recordings[0].group


def test_a_folder_without_sub_folders_is_refused(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav", "dog/e.wav")
    with pytest.raises(DatasetError, match=r"4 clips in no sub-folder: a.wav, b.wav, c.wav and 1 more.*write a table"):
        read_recordings(tmp_path)
    with pytest.raises(DatasetError, match="no sound or video"):
        read_recordings(touch(tmp_path / "empty", "notes.txt"))


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path):
    path = table(tmp_path, ("path", "label", "new_label", "Speaker"), ("a.wav", "x", "y", "s"))
    with pytest.raises(DatasetError, match=r"no column 'new_lable'.*Did you mean 'new_label'"):
        read_recordings(path, "new_lable")
    for name in ("word", "age", "speaker", "group"):
        with pytest.raises(DatasetError, match=f"no column 'qqqq'.*Name the column by `{name}`"):
            read_recordings(path, **{name: "qqqq"})
    assert read_recordings(path)[0].speaker == ""  # under its usual name a column may be missing
    with pytest.raises(DatasetError, match=r"no column 'path'.*one of 'file', 'label'"):
        read_recordings(table(tmp_path, ("file", "label"), ("a.wav", "x"), files=False))
    with pytest.raises(DatasetError, match="no column 'speaker_id'"):
        read_recordings(touch(tmp_path / "folder", "x/a.wav"), group="speaker_id")


@pytest.mark.parametrize("nothing", ["", "nan", "NaN", " "])
def test_a_label_that_is_missing_or_nan_is_refused(tmp_path, nothing):
    path = table(tmp_path, ("path", "label"), ("a.wav", "x"), ("b.wav", nothing), ("c.wav", "x"), ("d.wav", nothing))
    with pytest.raises(DatasetError, match=r"2 of 4 rows have nothing in 'label', or NaN \(line 3, 5\)"):
        read_recordings(path)


def test_a_group_that_is_asked_for_is_needed_in_each_row(tmp_path):
    path = table(tmp_path, ("path", "label", "speaker"), ("a.wav", "x", "s"), ("b.wav", "y", ""))
    assert [recording.group for recording in read_recordings(path)] == ["s", ""]
    with pytest.raises(DatasetError, match="1 of 2 rows have nothing in 'speaker'"):
        read_recordings(path, group="speaker")


@pytest.mark.parametrize("nan", ["nan", "NaN"])
def test_nan_is_no_word_no_age_and_no_speaker(tmp_path, nan):
    path = table(tmp_path, ("path", "label", "word", "age", "speaker"), ("a.wav", "x", nan, nan, nan))
    assert read_recordings(path) == [Recording(tmp_path / "a.wav", "x")]
    with pytest.raises(DatasetError, match="1 of 1 rows have nothing in 'speaker', or NaN"):
        read_recordings(path, group="speaker")


def test_missing_files_are_counted_and_named(tmp_path):
    rows = [(f"{i}.wav", "x") for i in range(6)]
    path = table(tmp_path, ("path", "label"), *rows, files=False)
    touch(tmp_path, "2.wav")
    with pytest.raises(DatasetError, match=r"5 of 6 files are missing: .*0.wav, .*1.wav, .*3.wav and 2 more"):
        read_recordings(path)
    assert len(read_recordings(path, on_error="skip")) == 6
    with pytest.raises(ParameterError, match="on_error"):
        read_recordings(path, on_error="ignore")
    with pytest.raises(DatasetError, match="no such file or folder"):
        read_recordings(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("again", ["a.wav", "./a.wav", "sub/../a.wav", "link.wav"])
def test_a_clip_that_is_listed_twice_is_refused(tmp_path, again):
    touch(tmp_path, "a.wav", "sub/b.wav")
    (tmp_path / "link.wav").symlink_to("a.wav")
    path = table(tmp_path, ("path", "label"), ("a.wav", "x"), ("sub/b.wav", "y"), (again, "y"), files=False)
    with pytest.raises(DatasetError, match=r"1 clips are listed more than once: .*a\.wav"):
        read_recordings(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na.wav,정상\n".encode("cp949"), "is no text.*Save it in UTF-8"),
        (b'path,label\n"a.wav,x\n', "cannot be read as a table"),
        (b"", "nothing in it"),
        (b"path,label\n\n", "nothing in it"),
        (b"path,label\na.wav,x,y\n", "line 2: 3 cells; expected 2, as the header. Quote what has ',' in it"),
        (b"path;label\na.wav;x;y\n", "line 2: 3 cells; expected 2, as the header. Quote what has ';' in it"),
        (b"path,label,label\na.wav,x,y\n", "'label' comes twice"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_recordings(tmp_path / "t.csv")


def test_a_clip_is_no_table(tmp_path):
    with pytest.raises(DatasetError, match="is a clip; expected a table"):
        read_recordings(touch(tmp_path, "a.wav") / "a.wav")


@pytest.mark.parametrize("age", ["four", "-1", "inf", "4;6"])
def test_an_age_that_is_none_is_refused(tmp_path, age):
    path = table(tmp_path, ("path", "label", "age"), ("a.wav", "x", "3"), ("b.wav", "y", age))
    with pytest.raises(DatasetError, match=f"line 3: '{age}' in 'age'"):
        read_recordings(path)


# Words


def test_row_14_a_filter_keeps_the_words_that_are_asked_for():
    recordings = some(*"abab", words=["rake", "wake", "key", "rake"])
    assert filter_words(recordings, ["rake"]) == filter_words(recordings, "rake") == [recordings[0], recordings[3]]
    assert filter_words(recordings, ["key", "wake"]) == recordings[1:3]  # in the order of the table
    assert filter_words(recordings, []) == filter_words(recordings, "") == recordings
    assert word_list([*recordings, *some("c")]) == ("key", "rake", "wake")


def test_an_empty_filter_is_refused_with_the_nearest_words():
    recordings = some(*"aba", words=["rake", "wake", "key"])
    with pytest.raises(DatasetError, match=r"no clip of 'lake'; expected .*Did you mean 'wake' or 'rake'"):
        filter_words(recordings, ["key", "lake"])
    with pytest.raises(DatasetError, match=r"no clip of 'lake'.*Name their column by `word`"):
        filter_words(some("a", "b"), ["lake"])


def test_words_unseen_in_training_are_refused():
    (clip,) = some("a", words=["rakes"])
    assert word_index(clip, ["key", "rakes"]) == 1 and word_index(clip, []) == -1
    assert word_index(some("a")[0], ["key"]) == -1
    with pytest.raises(DatasetError, match=r"0.wav: its word 'rakes' is none of the 2 .*Did you mean 'rake'"):
        word_index(clip, ("rake", "key"))


# Labels and ages


def test_row_11_classes_are_sorted():
    labels = Labels.of(some("normal", "abnormal", "normal", "other"))
    assert labels == Labels(("abnormal", "normal", "other"))
    assert [labels.number(clip) for clip in some("other", "abnormal")] == [2, 0]
    assert Labels.of(some("10", "9", "-1.5")).names == ("-1.5", "9", "10")  # numbers as numbers
    assert Labels.of(some("a", "b"), order=["b", "a", "c"]).names == ("b", "a", "c")


def test_row_11_targets_of_a_regression():
    labels = Labels.of(some("3.5", "-2", "1e1"), "regression")
    assert labels.names == () and [labels.number(clip) for clip in some("3.5", "-2", "7")] == [3.5, -2.0, 7.0]
    clips = some("mild", "none", "severe", "none", "worst")
    labels = Labels.of(clips, "regression", order=["none", "mild", "severe", "worst"])
    assert [labels.number(clip) for clip in clips] == [1 / 3, 0, 2 / 3, 0, 1]
    with pytest.warns(UserWarning, match="mild, none, severe, worst; give `order`"):
        assert Labels.of(clips, "regression").number(clips[0]) == 0


@pytest.mark.parametrize("bad", ["n/a", "inf", "0,5"])
def test_a_regression_of_numbers_and_something_else_is_refused(bad):
    clips = some("0", "1", bad, "10")
    with pytest.raises(DatasetError, match=rf"1 of 4 are no finite numbers: '{bad}' \(2.wav\).*give `order`"):
        Labels.of(clips, "regression")
    assert Labels.of(clips, "regression", order=["0", "1", "10", bad]).number(clips[2]) == 1
    assert Labels.of(clips).names == tuple(sorted(["0", "1", bad, "10"]))
    with pytest.raises(DatasetError, match="2 of 2 are no finite numbers: '0,5'"):
        Labels.of(some("0,5", "0,7"), "regression")


def test_labels_that_make_no_task_are_refused():
    with pytest.raises(DatasetError, match="one value only: a"):
        Labels.of(some("a", "a"))
    with pytest.raises(DatasetError, match=r"order.*c in the table"):
        Labels.of(some("a", "c"), order=["a", "b"])
    with pytest.raises(DatasetError, match="target 'c'; expected one of a, b"):
        Labels(("a", "b")).number(some("c")[0])
    for text in ("c", "inf"):
        with pytest.raises(DatasetError, match=f"target '{text}'; expected a finite number"):
            Labels((), "regression").number(some(text)[0])
    with pytest.raises(ParameterError, match="task"):
        Labels.of(some("a", "b"), "ranking")


def number(age, ages=AGES):
    return age_index(Recording(Path("a.wav"), "", age=age), ages)


def test_row_7_the_index_of_an_age_is_that_of_the_nearest_listed():
    assert len(AGES) == 14
    for place, age in enumerate(AGES):
        assert number(age) == place
    for age in (2.2, 3.3, 6.7, 7.4, 7.6, 9.9):
        distances = [abs(listed - age) for listed in AGES]
        assert distances[number(age)] == min(distances)
    assert AGES[number(7.5)] == 7.0  # the younger of two
    assert number(10.5) == 13 and number(1.75) == 0 and number(29, [20, 40, 60]) == 0


@pytest.mark.parametrize("age", [1.7, 10.6, 35, math.nan])
def test_an_age_beyond_the_list_is_refused(age):
    with pytest.raises(DatasetError, match="expected from 2 to 10"):
        number(age)
    with pytest.raises(DatasetError, match="expected from 5 to 5"):
        number(age, [5])


@pytest.mark.parametrize("ages", [[3, 2], [2, 2]])
def test_ages_ascend(ages):
    with pytest.raises(ParameterError, match="ages"):
        number(2, ages)

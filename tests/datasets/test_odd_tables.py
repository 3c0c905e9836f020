"""Tables and lists as users have them: the right rows in every reader, or a DatasetError."""

import json

import pytest

from avlib.datasets import sources, svc
from avlib.datasets.audiotoken import table as audiotoken
from avlib.datasets.cav_mae import items
from avlib.datasets.classification import table as classification
from avlib.datasets.unit2av import faces, manifests
from avlib.errors import DatasetError, ParameterError
from avlib.features import check_boxes

READERS = {  # by row: the name of the second column, and the pairs that it reads
    "cav_mae": ("label", lambda path: [(each.path.name, *each.labels) for each in items.read_items(path)]),
    "classification": (
        "label",
        lambda path: [(each.path.name, each.target) for each in classification.read_recordings(path)],
    ),
    "audiotoken": ("label", lambda path: [(each.wav.name, each.label) for each in audiotoken.read_clips(path)]),
    "svc": ("singer", lambda path: [(each.path.name, each.singer) for each in svc.read_sources(str(path))]),
    "unit2av": ("audio", lambda path: [(a.name, b.name) for a, b, _ in faces.read_videos(path)]),
}


@pytest.fixture(params=READERS)
def read(request, tmp_path):
    column, reader = READERS[request.param]
    for name in "ab":
        (tmp_path / f"{name}.wav").touch()

    def of(content):
        (tmp_path / "table.csv").write_bytes(content.replace(b"SECOND", column.encode()))
        return reader(tmp_path / "table.csv")

    return of


@pytest.mark.parametrize(
    "content",
    [
        b"path,SECOND\na.wav,dog\nb.wav,cat\n",
        b"\xef\xbb\xbfpath,SECOND\r\na.wav,dog\r\nb.wav,cat",
        b"path,SECOND\ra.wav,dog\rb.wav,cat\r",
        b"\npath\tSECOND\n\na.wav\tdog\n\t\nb.wav\tcat\n",
        b'"path";"SECOND"\n"a.wav"; dog \nb.wav;"cat"\n',
    ],
)
def test_rows_of_a_healthy_table(read, content):
    assert read(content) == [("a.wav", "dog"), ("b.wav", "cat")]


@pytest.mark.parametrize(
    "content",
    [
        b"path,SECOND\na.wav,dog,bark\n",
        b'path,SECOND\na.wav,"dog\nb.wav,cat\n',
        b"path,SECOND,SECOND\na.wav,dog,x\n",
        b"path,SECOND\na.wav,d\xe9g\n",
        b"path,SECOND\na.wav,d\0g\n",
        b"path,SECOND\na\0.wav,dog\n",
        b"path,SECOND\na.wav,dog\nb.wav,cat\n\x1a",
        b"path,SECOND\na.wav,dog\nb.wav,cat\n" + bytes(4096),
        "path,SECOND\na.wav,dog\n".encode("utf-16-le"),
        b"path,SECOND\na.wav," + b"x" * 200_000,
        b"path,SECOND\n,dog\n",
        b"path,SECOND\n",
        b"",
    ],
)
def test_an_odd_table_is_refused(read, content):
    with pytest.raises(DatasetError, match="table"):
        read(content)


def test_a_folder_or_a_name_too_long_is_no_table(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv", tmp_path / ("x" * 5000 + ".csv")):
        with pytest.raises(DatasetError):
            sources.read_table(path)


ENTRY = {"video_id": "a", "wav": "a.wav", "video_path": "v", "labels": "/m/1,/m/2"}


@pytest.mark.parametrize(
    "content",
    [
        {"data": None},
        {"data": 5},
        {"data": {"a": 1}},
        {"data": [None]},
        *({"data": [ENTRY | {name: value}]} for name, value in [("video_id", 5), ("wav", ""), ("wav", None)]),
        *({"data": [ENTRY | {name: value}]} for name, value in [("labels", ["/m/1"]), ("split", 1)]),
        '{"data": [{"wav": "b.wav", ' + json.dumps(ENTRY)[1:] + "]}",
        '{"data": ' + "[" * 100_000 + "]" * 100_000 + "}",
        json.dumps({"data": [ENTRY]}) + json.dumps({"data": [ENTRY]}),
    ],
)
def test_odd_json_is_refused(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"data": [ENTRY]}), encoding="utf-8-sig")
    assert [(each.wav, each.labels) for each in items.read_items(path)] == [(tmp_path / "a.wav", ("/m/1", "/m/2"))]
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=r"table\.json"):
        items.read_items(path)


@pytest.mark.parametrize(
    "line",
    [
        "K,nan,dog,test",
        "K,inf,dog,test",
        f"K,{'9' * 400},dog,test",
        "K,-1,dog,test",
        "K,1_0,dog,test",
        'K,2,"dog,test',
        "K,1,d\0g,test",
        "K,1," + "x" * 200_000 + ",test",
    ],
)
def test_segments_of_videos(tmp_path, line):
    path = tmp_path / "segments.csv"
    path.write_text('# id, "start"\nK,361,"dog, big",test\n')
    assert list(sources.segments(path)) == [("K", 361.0, "dog, big", "test")]
    path.write_text(f"K,361,dog,test\n{line}\n")
    with pytest.raises(DatasetError, match=r"segments\.csv"):
        items.read_items(path)


def test_odd_lists_labels_manifests_and_boxes(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes("a.mp4\n".encode("utf-16-le"))
    for reader in (items.read_items, manifests.read_units, manifests.read_manifest):
        with pytest.raises(DatasetError, match=r"odd\.txt"):
            reader(path)
    path.write_text("(lp0\nVa\np1\na.")  # a pickle that looks like text
    with pytest.raises(DatasetError, match="pickled"):
        audiotoken.select([audiotoken.Clip("a", None, None)], exclude=[path])
    for rows in ("", "0,/m/1", "0,,dog"):
        path.write_text(f"index,mid,display_name\n{rows}\n")
        with pytest.raises(DatasetError, match="class"):
            items.LabelTable.read(path)
    path.write_text('{"audio": "a\\u0000", "unit_path": "b"}')
    with pytest.raises(DatasetError, match="line 1"):
        manifests.read_manifest(path)
    assert check_boxes([[1, 2, 3, 4], None]) == [(1.0, 2.0, 3.0, 4.0), None]
    for box in (["1", "2", "3", "4"], [True] * 4, [1j, 2, 3, 4], [[1], [2, 3]], [10**400, 2, 3, 4]):
        with pytest.raises(ParameterError, match="four finite numbers"):
            check_boxes([box])

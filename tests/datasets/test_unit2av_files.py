"""Unit2AV's files: units, manifests and boxes; what is code in them is refused and not executed."""

import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from avlib import media
from avlib.datasets.unit2av import (
    detect_boxes,
    manifest,
    read_boxes,
    read_manifest,
    read_units,
    warn_if_shared,
    write_boxes,
    write_units,
)
from avlib.errors import DatasetError, ParameterError


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


# Units


def test_text_and_pt_in_all_published_forms(tmp_path):
    (tmp_path / "a.txt").write_text("5 5 17\n0 999\n")
    assert read_units(tmp_path / "a.txt").units.tolist() == [5, 5, 17, 0, 999]
    units, speaker = torch.tensor([5, 5, 17]), torch.rand(256)
    forms = [
        units,
        units[None].int(),
        {"code": units},
        {"code": units[None], "spkr": speaker.view(1, 1, 256), "dur_prediction": True, "f0": None},
        {"code": units[None], "spkr": speaker},
    ]
    for form in forms:
        torch.save(form, tmp_path / "a.pt")
        found = read_units(tmp_path / "a.pt")
        assert found.units.tolist() == [5, 5, 17] and found.units.dtype == torch.int64
        has = isinstance(form, dict) and "spkr" in form
        assert torch.equal(found.speaker, speaker) if has else found.speaker is None


@pytest.mark.parametrize("name", ["a.txt", "a.pt"])
def test_what_is_written_is_read(tmp_path, name):
    units, speaker = torch.tensor([3, 3, 0, 12]), torch.rand(256)
    write_units(tmp_path / name, units, speaker)
    found = read_units(tmp_path / name)
    assert torch.equal(found.units, units) and (name == "a.txt" or torch.equal(found.speaker, speaker))
    if name == "a.pt":
        assert torch.load(tmp_path / name)["code"].shape == (1, 4)  # as published training takes it


def test_the_other_convention(tmp_path):
    (tmp_path / "a.txt").write_text("4 4\n1003 20")
    assert read_units(tmp_path / "a.txt", unit_offset=4, num_embeddings=1000).units.tolist() == [0, 0, 999, 16]
    with pytest.raises(ParameterError, match=r"1003 at line 2 of .*a.txt; expected 0 to 999.*K = 1000.*unit_offset=4"):
        read_units(tmp_path / "a.txt", num_embeddings=1000)
    torch.save(torch.tensor([4, 2]), tmp_path / "a.pt")
    with pytest.raises(ParameterError, match=r"-2 at position 1 of .*a.pt; expected 0 or more"):
        read_units(tmp_path / "a.pt", unit_offset=4)


@pytest.mark.parametrize("text, words", [("", "no units"), ("1 2\n3 x4", "'x4' in line 2"), ("1.5", "'1.5' in line 1")])
def test_texts_that_are_no_units(tmp_path, text, words):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DatasetError, match=words):
        read_units(tmp_path / "a.txt")
    with pytest.raises(DatasetError, match="no such file"):
        read_units(tmp_path / "b.txt")


@pytest.mark.parametrize(
    "content, words",
    [
        (torch.rand(4), "float32 of shape"),
        (torch.zeros(2, 3, dtype=torch.long), r"int64 of shape \(2, 3\)"),
        (torch.zeros(0, dtype=torch.long), r"shape \(0,\)"),
        ({"spkr": torch.rand(256)}, "NoneType"),
        ({"code": torch.tensor([1]), "spkr": torch.rand(2, 256)}, "no vector"),
    ],
)
def test_pt_files_that_are_no_units(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(DatasetError, match=words):
        read_units(tmp_path / "a.pt")


def test_a_malicious_pt(tmp_path):
    torch.save({"code": Bomb(tmp_path / "executed")}, tmp_path / "a.pt")
    with pytest.raises(DatasetError, match="nothing in it was executed"):
        read_units(tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()


# Manifests


@pytest.fixture
def corpus(tmp_path):
    """Two pairs, a file without sound, one without "code", and one that is no file of PyTorch."""
    (tmp_path / "sound/113").mkdir(parents=True)
    (tmp_path / "units").mkdir()
    for stem in ("113_003_0012", "113_003_0013", "113_003_0014"):
        (tmp_path / "sound/113" / f"{stem}.wav").touch()
    for stem in ("113_003_0012", "113_003_0013", "114_001_0001"):
        write_units(tmp_path / "units" / f"{stem}_preprocessed.pt", torch.tensor([1, 2, 1003]))
    torch.save({"spkr": torch.rand(256)}, tmp_path / "units/113_003_0014_preprocessed.pt")
    (tmp_path / "units/broken.pt").write_bytes(b"x")
    return tmp_path


def test_a_manifest_pairs_files_and_counts_the_others(corpus):
    made = manifest(corpus / "sound", corpus / "units", corpus / "all.txt")
    assert [pair.audio.name for pair in made.pairs] == ["113_003_0012.wav", "113_003_0013.wav"]
    assert {why: [path.name for path in paths] for why, paths in made.skipped.items()} == {
        "without units that can be read": ["113_003_0014_preprocessed.pt", "broken.pt"],
        "without sound": ["114_001_0001_preprocessed.pt"],
    }
    assert str(made).startswith("2 pairs; 2 without units")
    lines = [json.loads(line) for line in (corpus / "all.txt").read_text().splitlines()]
    assert lines[0]["audio"] == str(corpus / "sound/113/113_003_0012.wav") and set(lines[0]) == {"audio", "unit_path"}
    pairs = read_manifest(corpus / "all.txt")
    assert [pair[:2] for pair in pairs] == [pair[:2] for pair in made.pairs]
    assert pairs[1].read(num_embeddings=1024).units.tolist() == [1, 2, 1003]
    with pytest.raises(ParameterError, match=r"all.txt line 2: units: 1003 at position 2.*K = 1000"):
        pairs[1].read(num_embeddings=1000)
    with pytest.raises(DatasetError, match="0 pairs; 3 without sound"):
        manifest(corpus / "units", corpus / "units")


def test_published_lines_are_read_without_executing_them(corpus):
    text = "{'audio': 'sound/113/113_003_0012.wav', 'unit_path': 'units/113_003_0012_preprocessed.pt'}\n\n"
    text += "{'audio': 'b\\d.wav', 'hubert': '7 7 300', 'codes': '1', 'duration': 1.5}\n"
    (corpus / "m.txt").write_text(text)
    first, second = read_manifest(corpus / "m.txt")
    assert first.audio == corpus / "sound/113/113_003_0012.wav" and first.read().units.tolist() == [1, 2, 1003]
    assert second.read().units.tolist() == [7, 7, 300]
    with pytest.raises(ParameterError, match=r"m.txt line 3: 300 at line 1 .*K = 200"):
        second.read(num_embeddings=200)


@pytest.mark.parametrize(
    "line",
    [
        "__import__('pathlib').Path('{}').touch()",
        "{{'audio': __import__('pathlib').Path('{}').touch(), 'unit_path': 'b'}}",
        "a bare path.wav",
        "['audio', 'b']",
        "{{'audio': 'b.wav'}}",
        "{{'audio': 'b.wav', 'unit_path': 3}}",
        "[" * 100_000,
    ],
)
def test_lines_that_are_refused(tmp_path, line):
    line = line.format(tmp_path / "executed")
    (tmp_path / "m.txt").write_text('{"audio": "a.wav", "unit_path": "a.pt"}\n' + line)
    with pytest.raises(DatasetError, match=r"m.txt line 2"):
        read_manifest(tmp_path / "m.txt")
    assert not (tmp_path / "executed").exists()


def test_paths_below_a_root(tmp_path):
    (tmp_path / "m.txt").write_text('{"audio": "a/../a.wav", "unit_path": "a.pt"}\n')
    assert read_manifest(tmp_path / "m.txt", root=tmp_path / "data")[0].audio == tmp_path / "data/a.wav"
    (tmp_path / "m.txt").write_text('{"audio": "../a.wav", "unit_path": "a.pt"}\n')
    with pytest.raises(DatasetError, match=r"line 1: .*a.wav; expected a path below .*data"):
        read_manifest(tmp_path / "m.txt", root=tmp_path / "data")
    (tmp_path / "m.txt").write_text("\n")
    with pytest.raises(DatasetError, match="no lines"):
        read_manifest(tmp_path / "m.txt")


def test_equal_manifests_warn(corpus):
    pairs = manifest(corpus / "sound", corpus / "units").pairs
    with pytest.warns(UserWarning, match="2 of 2 validation pairs are in the training manifest"):
        warn_if_shared(pairs, list(pairs))
    warn_if_shared(pairs[:1], pairs[1:])


# Boxes

BOXES = [(1.0, 2.0, 30.5, 40.0), None, (0.0, 0.0, 0.0, 0.0)]


def test_boxes_as_json(tmp_path):
    write_boxes(tmp_path / "one.json", [BOXES])
    assert json.loads((tmp_path / "one.json").read_text())[1] is None
    assert read_boxes(tmp_path / "one.json") == BOXES
    write_boxes(tmp_path / "two.json", [BOXES, BOXES[::-1]])
    assert read_boxes(tmp_path / "two.json", face=1) == BOXES[::-1]
    with pytest.raises(ParameterError, match="face: 2; expected a whole number from 0 to 1"):
        read_boxes(tmp_path / "two.json", face=2)


@pytest.mark.parametrize("protocol", range(6))
def test_published_boxes(tmp_path, protocol):
    for boxes in (
        [None if box is None else np.float32(box) for box in BOXES],
        [None if box is None else [np.float32(edge) for edge in box] for box in BOXES],
    ):
        (tmp_path / "a.bbox.pkl").write_bytes(pickle.dumps(boxes, protocol))
        assert read_boxes(tmp_path / "a.bbox.pkl") == BOXES


def test_boxes_of_older_numpy(tmp_path):
    content = pickle.dumps([np.float32(box) if box else None for box in BOXES], protocol=3)
    assert b"numpy._core" in content
    (tmp_path / "a.pkl").write_bytes(content.replace(b"numpy._core", b"numpy.core"))
    assert read_boxes(tmp_path / "a.pkl") == BOXES


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles(tmp_path, protocol):
    for content in (Bomb(tmp_path / "executed"), [np.zeros(4), Bomb(tmp_path / "executed")]):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DatasetError, match=r"open.*nothing in it was executed"):
            read_boxes(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(DatasetError, match=r"os.system"):
        read_boxes(tmp_path / "a.pkl")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content, error, words",
    [
        (b"", DatasetError, "cannot be read"),
        (b"[[1, 2, 3, 4]", DatasetError, "cannot be read"),
        (pickle.dumps([np.zeros(4)])[:-9], DatasetError, "cannot be read"),
        (b'{"boxes": []}', DatasetError, "no tracks"),
        (b"[[1, 2, 3]]", ParameterError, r"a.json\[0\]: \[1, 2, 3\]; expected four finite numbers"),
        (b"[null, [1, 2, 3, NaN]]", ParameterError, r"a.json\[1\]"),
        (pickle.dumps([np.array([None] * 4)]), ParameterError, r"a.json\[0\]"),
        (pickle.dumps(7), ParameterError, "a.json: 7; expected a list"),
    ],
)
def test_files_that_are_no_boxes(tmp_path, content, error, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(error, match=words):
        read_boxes(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="is no file"):
        read_boxes(tmp_path)


def squares(places, size=64):
    """Pictures with white squares at x, y, of 12 x 12."""
    for frame in places:
        picture = np.zeros((size, size, 3), np.uint8)
        for x, y in frame:
            picture[y : y + 12, x : x + 12] = 255
        yield picture


class Squares:
    """Stands for MTCNN: finds columns with white squares, in an order of its own."""

    def __init__(self, keep_all):
        assert keep_all

    def detect(self, picture):
        rows, columns = picture[:, :, 0].max(1) > 127, np.flatnonzero(picture[:, :, 0].max(0) > 127)
        if not len(columns):
            return None, [None]
        found = [part for part in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(part) > 8][::-1]
        top, bottom = np.flatnonzero(rows)[[0, -1]]
        boxes = [[part[0], top, part[-1] + 1, bottom + 1] for part in found]
        return np.float32([*boxes, [0, 0, 5, 5]]), np.array([0.99] * len(boxes) + [0.5])


def test_each_face_is_followed(tmp_path, monkeypatch):
    """The left one moves and is away for a frame; the right one comes later and is seen less."""
    places = [[(4 + i, 8)] + [(40, 8)] * (i > 3) if i != 5 else [(40, 8)] for i in range(10)]
    media.write_video(tmp_path / "a.mp4", squares(places), 25.0)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", types.SimpleNamespace(MTCNN=Squares))
    left, right = detect_boxes(tmp_path / "a.mp4")
    assert [box is None for box in left] == [i == 5 for i in range(10)]
    assert [box is None for box in right] == [i < 4 for i in range(10)]
    assert all(abs(box[0] - 4 - i) <= 2 for i, box in enumerate(left) if box)
    assert all(abs(box[0] - 40) <= 2 for box in right if box)


def test_without_a_detector_the_error_says_how_to_give_boxes(tmp_path, monkeypatch):
    media.write_video(tmp_path / "a.mp4", squares([[]]), 25.0)
    for name in ("facenet_pytorch", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ParameterError, match=r"boxes: none given.*Give a JSON file: \[\[x1, y1, x2, y2\], null"):
        detect_boxes(tmp_path / "a.mp4")
    with pytest.raises(ParameterError, match="detector 'mtcnn' is missing"):
        detect_boxes(tmp_path / "a.mp4", "mtcnn")
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="5.0.0"))  # no cascades any more
    with pytest.raises(ParameterError, match="no detector"):
        detect_boxes(tmp_path / "a.mp4")

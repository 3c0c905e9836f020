"""Tables and folders: what they list, whatever the names, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch
from making import write_clip
from PIL import Image

from avlib.datasets import cav_mae
from avlib.errors import DatasetError

ODD = ["#1, a dog.mp4", "a.b.c.mp4", "two  spaces .mp4", "00W1lcxW-WU_40.000.mp4", "개.mp4"]


def write_json(path: Path, *entries: dict) -> Path:
    path.write_text(json.dumps({"data": list(entries)}))
    return path


def test_a_folder_is_labelled_by_its_sub_folders(tmp_path):
    for name in ["cat/1.mp4", "dog/deep/2.MKV", "3.webm", "cat/notes.txt", ".hidden/4.mp4", "dog/.unfinished-5.mp4"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = cav_mae.read_items(tmp_path)
    found = [(str(item.path.relative_to(tmp_path)), item.labels) for item in items]
    assert found == [("3.webm", ()), ("cat/1.mp4", ("cat",)), ("dog/deep/2.MKV", ("dog",))]
    table = cav_mae.LabelTable.of(items)
    assert table.names == ("cat", "dog") and [table.indices(item) for item in items] == [[], [0], [1]]


@pytest.mark.parametrize(
    "names", [ODD[:1], ODD, ODD[2:3]], ids=["one line with # and comma", "many", "one with spaces"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_list_is_taken_line_by_line(tmp_path, names, end):
    # numpy.loadtxt, with which the published scripts read it, dies of one line and cuts at # and comma.
    path = tmp_path / "list.csv.txt"
    path.write_bytes(((end or "\n").join(names) + end).encode())
    items = cav_mae.read_items(path)
    assert [item.path for item in items] == [tmp_path / name for name in names]
    assert [item.video_id for item in items] == [name.removesuffix(".mp4") for name in names]


def test_a_csv_has_one_label_or_several(tmp_path):
    one, several, none = tmp_path / "one.csv", tmp_path / "several.csv", tmp_path / "none.csv"
    with one.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], [ODD[0], "Bark, loud"], ["/abs/x.mp4", ""]])
    several.write_text('path,labels\nx.mp4,"/m/1, /m/2"\n')
    none.write_text("path\nx.mp4\n")
    items = cav_mae.read_items(one)
    assert [(item.path, item.labels) for item in items] == [
        (tmp_path / ODD[0], ("Bark, loud",)),
        (Path("/abs/x.mp4"), ()),
    ]
    assert cav_mae.read_items(several)[0].labels == ("/m/1", "/m/2")
    assert cav_mae.read_items(none)[0].labels == ()


def test_the_published_json(tmp_path):
    entry = {"video_id": "a.b", "wav": "/data/a.b.wav", "video_path": "/data/frames", "labels": "/m/1,/m/2"}
    (item,) = cav_mae.read_items(write_json(tmp_path / "data.json", entry))
    assert item.labels == ("/m/1", "/m/2") and item.wav == Path("/data/a.b.wav")
    assert item.picture(3) == Path("/data/frames/frame_3/a.b.jpg")


def test_lists_of_audioset_and_vggsound(tmp_path):
    audioset, vggsound = tmp_path / "eval_segments.csv", tmp_path / "vggsound.csv"
    audioset.write_text(
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=1, num_segs=1\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '00W1lcxW-WU, 40.000, 50.000, "/m/068hy,/m/0bt9lr"\n'
    )
    vggsound.write_text('KlsG1EnBEjc,361,"dog barking, far",test\nzzz,5,bell,train\n')
    (item,) = cav_mae.read_items(audioset, "clips")
    assert (item.path, item.labels) == (Path("clips/00W1lcxW-WU_40.000.mp4"), ("/m/068hy", "/m/0bt9lr"))
    first, second = cav_mae.read_items(vggsound)
    assert (first.path, first.labels) == (tmp_path / "KlsG1EnBEjc_000361.mp4", ("dog barking, far",))
    assert (first.split, second.split) == ("test", "train")
    vggsound.write_text("KlsG1EnBEjc,5,bell,test\nKlsG1EnBEjc,late,bell,test\n")
    with pytest.raises(DatasetError, match=r"line 2: 'KlsG1EnBEjc,late,bell,test'; expected four columns"):
        cav_mae.read_items(vggsound)
    with pytest.raises(DatasetError, match=r"first line is 'one,2'.*AudioSet"):
        vggsound.write_text("one,2\n")
        cav_mae.read_items(vggsound)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.json", "{", "not in the published form"),
        ("x.json", "[1]", "not in the published form"),
        ("x.json", '{"data": [{"video_id": "a", "wav": "a.wav", "labels": ""}]}', "entry 0: lacks 'video_path'"),
        ("x.json", '{"data": [{"video_id": "a", "wav": 1, "video_path": "", "labels": ""}]}', "entry 0.*not all.*text"),
        ("x.json", '{"data": []}', "nothing in it"),
        ("x.csv", "file,label\nx.mp4,dog\n", "first line is 'file,label'; expected a header with `path`"),
        ("x.csv", "path,label\n,dog\n", "line 2: no path"),
        ("x.txt", "\n\n", "nothing in it"),
        ("x.mp4", b"\xff\xfe\x00\x80", "is no text"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, name, content, match):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=match) as caught:
        cav_mae.read_items(path)
    assert str(path) in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DatasetError, match="no such file or folder"):
        cav_mae.read_items(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"nothing in it; expected clips \(.*\.mp4"):
        cav_mae.read_items(tmp_path)


def test_the_label_table_in_the_published_form(tmp_path):
    path = tmp_path / "class_labels_indices.csv"
    path.write_text('index,mid,display_name\n1,/m/05zppz,"Male speech, man speaking"\n0,/m/09x0r,Speech\n')
    table = cav_mae.LabelTable.read(path)
    assert table.mids == ("/m/09x0r", "/m/05zppz") and table.names[1] == "Male speech, man speaking"
    item = cav_mae.ClipItem(("/m/05zppz", "Speech", "/m/05zppz"), Path("x.mp4"))
    assert table.indices(item) == [1, 0]  # by mid or by name, each once
    table.write(tmp_path / "again.csv")
    assert cav_mae.LabelTable.read(tmp_path / "again.csv") == table
    with pytest.raises(DatasetError, match=r"x\.mp4: unknown label '/m/nothing'; expected a mid or a name of the 2"):
        table.indices(cav_mae.ClipItem(("/m/nothing",), Path("x.mp4")))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("mid,index\n", "first line"),
        ("index,mid,display_name\n0,a,A\n2,b,B\n", "gaps"),
        ("index,mid,display_name\n0,a,A\n0,b,B\n", "twice"),
        ("index,mid,display_name\n0,a,A\n1,a,B\n", "the mid 'a' comes twice"),
    ],
)
def test_label_tables_that_cannot_be_used(tmp_path, content, match):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(DatasetError, match=match):
        cav_mae.LabelTable.read(path)
    with pytest.raises(DatasetError, match="no such file"):
        cav_mae.LabelTable.read(tmp_path / "nothing.csv")


def test_a_scene_is_the_clip_that_it_renders_to():
    from avlib import clips

    scene = cav_mae.scene_items(3, seed=5, seconds=1.0)[2]
    (rendered,) = clips.render([scene.scene], size=(64, 64), jobs=1, progress=False)
    clip = cav_mae.ClipItem((), rendered.path)
    settings = {"image_size": 64, "target_length": 96, "frame": 7}
    direct = cav_mae.CAVMAEDataset([scene], **settings)[0]
    through = cav_mae.CAVMAEDataset([clip], **settings)[0]
    # The codecs leave their marks; another frame, or half a second of shift, would be far away.
    assert (direct.image - through.image).abs().mean() < 0.1
    # h264 and aac lose what is quiet and above 15 kHz
    assert torch.corrcoef(torch.stack([direct.fbank[:, :100].flatten(), through.fbank[:, :100].flatten()]))[0, 1] > 0.9
    assert direct.labels.tolist() == [1.0] and through.labels.tolist() == []


def test_scenes_come_kind_by_kind_and_a_seed_shares_nothing():
    first, other = cav_mae.scene_items(16, 0, 1.0), cav_mae.scene_items(16, 1, 1.0)
    table = cav_mae.LabelTable.of(first)
    assert len(table) == 8 and [item.labels for item in first[:8]] == [item.labels for item in first[8:]]
    assert not {item.scene for item in first} & {item.scene for item in other}


def test_sound_and_pictures_of_a_clip_are_read_in_one_go(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    item = cav_mae.ClipItem((), path)
    sound, pictures = item.read([2, 0], cav_mae.items.Reading(image_size=32))
    alone, none = item.read([], cav_mae.items.Reading(image_size=32))
    assert torch.equal(sound, alone) and pictures.shape == (2, 3, 32, 32) and none.shape == (0, 3, 32, 32)


def test_pictures_of_any_mode_are_read(tmp_path):
    (tmp_path / "frame_0").mkdir()
    item = cav_mae.ExtractedItem((), "x", tmp_path / "x.wav", tmp_path)
    for mode in ("L", "RGB", "CMYK"):
        Image.new(mode, (40, 30), 77 if mode == "L" else None).save(item.picture(0))
        assert cav_mae.items._read_picture(item.picture(0)).shape == (30, 40, 3)

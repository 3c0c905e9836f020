"""The clip reader and the store that all rows share."""

import numpy as np
import pytest
import torch
from making import tone, write_wav

from avlib.clips import Scene
from avlib.datasets.items import ItemDataset
from avlib.datasets.sources import FileReader, SceneReader, from_int16, read_window, to_int16
from avlib.errors import MediaError, ParameterError


def test_sounds_are_held_as_int16_where_that_is_exact():
    exact = torch.arange(-32767, 32768).float() / 2**15
    assert to_int16(exact).dtype == np.int16 and torch.equal(from_int16(torch.from_numpy(to_int16(exact))), exact)
    for other in (exact + 2**-17, torch.tensor([1.0])):
        assert to_int16(other).dtype == np.float32
        assert torch.equal(from_int16(torch.from_numpy(to_int16(other))), other)
    assert len(to_int16(torch.empty(0))) == 0


def test_a_scene_and_a_file_are_read_alike(tmp_path):
    scene = SceneReader(Scene("bell", 3, 2.0))
    file = FileReader(write_wav(tmp_path / "bell.wav", scene.sound()[None], 16000))
    assert scene.seconds == file.seconds == 2.0
    part = scene.sound(start=0.5, seconds=0.25)
    assert torch.equal(part, scene.sound()[8000:12000])
    assert (file.sound(start=0.5, seconds=0.25) - part).abs().max() < 2**-15
    window, start = read_window(scene, 1.0, lambda samples: samples - 8000)
    assert start == 24000 and torch.equal(window, scene.sound()[24000:])
    with pytest.raises(MediaError, match=r"scene bell 3: its sound ends at 2.00 s; expected a window at 2.0 s"):
        read_window(scene, 1.0, lambda samples: samples)
    with pytest.raises(ParameterError, match="channel: 2; expected 0 to 1"):
        scene.sound(2)


class Counted(ItemDataset):
    ragged = ("long",)

    def contents(self, index):
        if self.items[index] == "bad":
            raise MediaError("bad", "is bad")
        return {"even": np.full(2, index), "long": np.arange(index)}


def test_memory_holds_what_can_be_used(tmp_path):
    memory = Counted(["a", "bad", "c"], 0, "skip").prepared(1, False)
    assert memory.items == ["a", "c"] and memory.memory["even"].tolist() == [[0, 0], [2, 2]]
    assert [len(each) for each in memory.memory["long"]] == [0, 2] and memory.prepared() is memory.usable() is memory
    assert "1 of 3 items left out" in memory.report()
    with pytest.raises(MediaError, match="is bad"):
        Counted(["bad"], 0, "raise").prepared(1, False)


def test_a_long_file_is_read_in_part(tmp_path):
    reader = FileReader(write_wav(tmp_path / "long.wav", tone(61, 16000), 16000))
    asked = []
    window, start = read_window(reader, 2.0, lambda samples: asked.append(samples) or samples - 16000)
    assert asked == [61 * 16000] and len(window) == 32000 and start == 59 * 16000  # as far as it goes

"""The published frame rule on real recordings, against decoding them whole."""

import pytest
import torch
from conftest import recording

from avlib import media
from avlib.features import cav_mae_frame_indices

PUBLISHED = {
    "00W1lcxW-WU_40.000.mp4": [0, 11, 24, 36, 49, 61, 74, 86, 99, 111],
    "KlsG1EnBEjc_000361.mp4": [0, 28, 58, 88, 118, 148, 178, 208, 238, 268],
}
SAMPLES = {"00W1lcxW-WU_40.000.mp4": 160125, "KlsG1EnBEjc_000361.mp4": 160135}  # of ffmpeg -ar 16000


@pytest.mark.parametrize("name", PUBLISHED)
def test_ten_frames_at_the_published_indices_are_those_of_a_whole_decoding(name):
    path = recording(name)
    clip = media.read_clip(path, cav_mae_frame_indices)
    assert clip.frame_indices == PUBLISHED[name]
    expected = [frame for index, (_, frame) in enumerate(media.iterate_frames(path)) if index in PUBLISHED[name]]
    assert torch.equal(clip.frames, torch.stack(expected))
    assert torch.equal(clip.frames, media.read_frames(path, PUBLISHED[name]))
    assert torch.equal(clip.frames, media.read_frames(path, times=clip.frame_times))


@pytest.mark.parametrize("name", PUBLISHED)
def test_sound_has_the_length_that_ffmpeg_gives(name):
    assert len(media.read_audio(recording(name))) == SAMPLES[name]


def test_a_header_that_lies():
    info = media.probe(recording("KlsG1EnBEjc_000361.mp4")).video
    assert (info.header_frames, info.frames) == (400, 299)

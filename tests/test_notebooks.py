"""The notebooks are tests: each is in form, runs whole, on clips of many sorts, and its verdicts are the known ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, recording
from making import numbered, tone, write_clip

from avlib import media, workbook

NOTEBOOKS = {notebook.number: notebook.path for notebook in workbook.discover()}

# What the claims of each notebook come to, in order. A change here is a finding: say why in the commit.
VERDICTS = {
    "00": "holds",
    "11": """does not hold, does not hold, holds, does not hold, holds, does not hold, does not hold, holds, holds when,
    does not hold, holds, holds, holds""",
}


def run(number, tmp_path, **parameters):
    """Run a notebook; it must pass, with the known verdicts whatever the clip."""
    result = workbook.run_one(NOTEBOOKS[number], parameters, tmp_path / f"{number}.ipynb")
    assert result.state == "passed", f"{result.message}\n{result.source}\n{result.traceback}"
    verdicts = [claim["verdict"] for claim in result.claims]
    expected = [verdict.strip() for verdict in VERDICTS[number].split(",")]
    assert len(verdicts) == len(expected), verdicts
    for verdict, known in zip(verdicts, expected, strict=True):
        assert verdict.startswith(known), verdicts
    return result


def test_all_are_there():
    assert set(NOTEBOOKS) == set(VERDICTS)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_form(number):
    assert workbook.verify_form(NOTEBOOKS[number]) == []


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_runs_with_its_defaults(number, tmp_path):
    result = run(number, tmp_path, out_dir=str(tmp_path / "files"))
    assert "Warning" not in (tmp_path / f"{number}.ipynb").read_text(), "a reader would see a warning"
    assert result.seconds < 60


def test_picture_of_the_readme_is_the_one_that_00_draws(tmp_path):
    from PIL import Image

    run("00", tmp_path, out_dir=str(tmp_path))
    drawn, kept = (
        Image.open(path).convert("RGB") for path in (tmp_path / "overview.png", ROOT / "notebooks/overview.png")
    )
    assert drawn.size == kept.size
    assert np.abs(np.asarray(drawn, float) - np.asarray(kept, float)).mean() < 3


def silent(path):
    media.write_video(path, map(numbered, range(40)), 10.0, torch.zeros(2, 44100 * 4), 44100)


def short(path):
    media.write_video(path, [numbered(1)], 25.0, tone(0.1, 8000), 8000)


def mono(path):
    media.write_video(path, map(numbered, range(75)), 29.97, tone(2.5, 22050), 22050)


def large_and_odd(path):
    frames = (np.full((721, 405, 3), 3 * index, np.uint8) for index in range(30))
    media.write_video(path, frames, 60.0, tone(0.5, 96000, channels=2), 96000)


@pytest.mark.parametrize("make", [silent, short, mono, large_and_odd])
def test_11_runs_on_any_clip(make, tmp_path):
    clip = tmp_path / "종 100%d.mp4"
    make(clip)
    run("11", tmp_path, clip=str(clip))


@pytest.mark.parametrize("name", ["00W1lcxW-WU_40.000.mp4", "KlsG1EnBEjc_000361.mp4"])
def test_11_runs_on_recordings(name, tmp_path):
    run("11", tmp_path, clip=str(recording(name)), seconds=5)


def test_11_writes_what_it_made(tmp_path):
    from safetensors.torch import load_file

    clip = write_clip(tmp_path / "clip.mp4")
    run("11", tmp_path, clip=str(clip), total_frames=4, out_dir=str(tmp_path / "made"))
    tensors = load_file(tmp_path / "made" / "clip.safetensors")
    assert tensors["audio"].shape == (1024, 128) and tensors["images"].shape == (4, 3, 224, 224)


def test_a_clip_without_sound_is_refused_by_name(tmp_path):
    media.write_video(tmp_path / "mute.mp4", map(numbered, range(5)), 25.0)
    result = workbook.run_one(NOTEBOOKS["11"], {"clip": str(tmp_path / "mute.mp4")}, tmp_path / "11.ipynb")
    assert result.state == "failed" and "mute.mp4: no audio stream" in result.message


def test_plain_papermill_from_another_folder(tmp_path):
    command = [str(Path(sys.executable).parent / "papermill"), str(NOTEBOOKS["11"]), "11.ipynb", "--no-progress-bar"]
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    done = subprocess.run(
        [*command, "-p", "seconds", "5"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "498 frames, 526 of padding" in (tmp_path / "11.ipynb").read_text()
    refused = subprocess.run(
        [*command, "-p", "secnods", "5"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert refused.returncode == 1
    last = json.loads((tmp_path / "11.ipynb").read_text())
    assert "secnods" in json.dumps(last["cells"]) and "seconds" in refused.stderr

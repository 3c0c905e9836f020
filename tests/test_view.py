"""What is drawn lies where it should."""

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from avlib import view
from avlib.errors import ParameterError
from avlib.shapes import palette


def pixels(axes):
    """The figure as it will be seen, and where a point of the axes lies in it."""
    figure = axes.figure
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    return lambda x, y: drawn[tuple(np.round([len(drawn) - 1, 0] + np.array([-1, 1]) * at(axes, x, y)).astype(int))]


def at(axes, x, y):
    return axes.transData.transform((x, y))[::-1]


def test_a_pipeline_marks_one_stage(monkeypatch):
    drawn = []
    monkeypatch.setattr(view, "show", lambda figure, alt: drawn.append((figure, alt)))
    view.pipeline("clip", "tokens, of sound and pictures", "answer", current="answer")
    ((figure, alt),) = drawn
    axes = figure.axes[0]
    assert [text.get_text().replace("\n", " ") for text in axes.texts if text.get_text()] == [
        "clip", "tokens, of sound and pictures", "answer"]  # fmt: skip
    boxes = [to_hex(box.get_facecolor()).upper() for box in axes.patches]
    assert [box == palette.CHOSEN for box in boxes] == [False, False, True]
    assert alt == "clip → tokens, of sound and pictures → answer; this notebook: answer"
    seen = pixels(axes)
    assert np.allclose(seen(2.3, 0.8), to_rgb(palette.CHOSEN), atol=0.02) and seen(0.5, 0.8).min() == 1
    box = axes.patches[1].get_window_extent()
    text = axes.texts[1].get_window_extent()
    assert box.x0 < text.x0 and text.x1 < box.x1 and box.y0 < text.y0 and text.y1 < box.y1
    assert min(text.get_fontsize() for text in axes.texts) >= 8
    plt.close(figure)
    with pytest.raises(ParameterError, match="current: 'b'"):
        view.pipeline("a", current="b")


def test_cover_hides_low_frequencies_at_the_bottom_of_a_spectrogram():
    _, axes = view.figure()
    view.plot_spectrogram(axes, torch.zeros(64, 32), 0.01)
    removed = torch.zeros(2, 4)
    removed[0, 3] = 1  # the lowest frequencies, at the end
    view.cover(axes, removed)
    seen = pixels(axes)
    assert np.allclose(seen(0.56, 8), to_rgb(palette.MASKED), atol=0.02)
    assert not np.allclose(seen(0.56, 24), to_rgb(palette.MASKED), atol=0.1)
    assert not np.allclose(seen(0.08, 8), to_rgb(palette.MASKED), atol=0.1)


def test_cover_hides_the_top_of_a_picture():
    _, axes = view.figure()
    view.plot_picture(axes, torch.ones(3, 64, 64))
    removed = torch.zeros(2, 2)
    removed[0, 1] = 1  # the top, on the right
    view.cover(axes, removed)
    seen = pixels(axes)
    assert np.allclose(seen(48, 16), to_rgb(palette.MASKED), atol=0.02)
    assert np.allclose(seen(48, 48), 1) and np.allclose(seen(16, 16), 1)


def test_similarity_has_audio_downwards():
    _, axes = view.figure()
    view.plot_similarity(axes, torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))
    seen = pixels(axes)
    red, blue = seen(0, 0), seen(1, 1)
    assert red[0] > red[2] and blue[2] > blue[0] and np.allclose(seen(0, 1), blue)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("audio", "image")


def test_letters_that_the_default_font_lacks_are_drawn_or_missed_once(monkeypatch, capsys, tmp_path):
    assert not any("Last Resort" in name for name in view._asian_fonts())
    monkeypatch.setattr(view, "_SAID", [])
    with monkeypatch.context() as without:
        without.setattr(view, "_asian_fonts", list)
        for _ in range(2):
            figure, axes = view.figure()
            axes.set_title("가나 abc é")
            figure.savefig(tmp_path / "boxes.png")  # a warning would be an error here
    assert capsys.readouterr().out.count("No installed font has 가나: ") == 1
    if not view._asian_fonts():
        pytest.skip("no font with Hangul is installed")
    figure, axes = view.figure()
    axes.set_title("가나 abc é")
    figure.savefig(tmp_path / "letters.png")
    boxes, letters = (plt.imread(tmp_path / f"{name}.png") for name in ("boxes", "letters"))
    assert not capsys.readouterr().out and np.abs(letters - boxes).max() > 0.5


def test_a_figure_has_a_text_for_screen_readers():
    figure, axes = view.figure(1, 2)
    axes[0].plot([1, 2], label="trained")
    axes[0].set(title="loss", xlabel="step", ylabel="nats")
    view.plot_spectrogram(axes[1], torch.zeros(64, 32))
    _, metadata = DisplayFormatter().format(figure)
    assert metadata["image/png"]["alt"] == "loss: nats over step: trained; mel bin; log energy"
    plt.close(figure)

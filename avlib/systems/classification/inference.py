"""A trained classifier at work: files in, a table out; vectors of them; where in a clip the evidence is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ... import media, training
from ...datasets.classification import Labels, Recording, age_index, read_recordings, word_index
from ...datasets.sources import SAMPLE_RATE, SOUND_SUFFIXES, VIDEO_SUFFIXES, existing, files_in
from ...errors import AvlibError, DatasetError, MediaError, ParameterError, check_choice
from ...models.classifiers import AudioClassifier
from ...workers import POLICIES, describe
from .evidence import Evidence, contributions, occlusion
from .predicting import NOT_TOLD, Heard, Sound, Vote, answers, in_samples, listen, vote
from .saving import Card, read_card, require_fit, save_classifier
from .tables import Embeddings, Table

Files = str | Path | Recording | Sequence[str | Path | Recording]

_TABLES = (".csv", ".tsv")


class Classifier:
    """A trained model with its card: what its answers mean, and what it can be told.

    Args:
        model: an `AudioClassifier`; it answers in evaluation mode, and its own mode is left as it is.
        card: see `Card`.
        folder: from which it was read, for messages.

    Raises:
        CheckpointError: the two do not belong together.
    """

    def __init__(self, model: nn.Module, card: Card, folder: str | Path = ""):
        require_fit(card, model, folder)
        self.model, self.card, self.folder = model, card, Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        labels: Labels | None = None,
        settings: Any = None,
        splits: Any = None,
        device: torch.device | str | None = None,
    ) -> Classifier:
        """Read what `save` or a training wrote. Whatever is given besides has to be that of the training.

        Args:
            folder: with weights, their configuration, and the card.
            labels: the classes that answers are to be; None for whichever they are.
            settings: a dataclass or a table, of which what decides what a model is has to agree.
            splits: the division of the clips, or its hashes.
            device: None or "auto" takes a GPU if there is one.

        Raises:
            CheckpointError: a file is missing or damaged, or does not fit the others or what is given.
        """
        card = read_card(folder)
        if labels is not None:
            card.require_labels(labels, folder)
        if settings is not None:
            card.require_settings(settings, folder)
        if splits is not None:
            card.require_splits(splits, folder)
        return cls(AudioClassifier.from_checkpoint(folder).to(training.chosen_device(device)).eval(), card, folder)

    def save(self, folder: str | Path) -> None:
        """Write all of it, for `load`.

        Raises:
            CacheError: it cannot be written.
        """
        rest = asdict(self.card)
        del rest["names"], rest["task"]
        save_classifier(folder, self.model, self.card.labels, **rest)

    def predict(
        self,
        files: Files,
        *,
        word: str | Sequence[str] = "",
        age: float | int | Sequence[float | int] | None = None,
        hop: float | int | None = None,
        on_error: str = "raise",
        batch_size: int = 16,
    ) -> Table:
        """An answer for each clip.

        Args:
            files: a sound or video, a folder of them (however deep), a table (`.csv` with `path`, and `word`, `age`
                where they are needed; other columns do not matter), recordings, or several files.
            word: that is said in the clips, or in each of them, where the model is told it; it wins over the table's.
            age: of the speakers, in years, likewise.
            hop: a clip longer than a window is heard in windows so many seconds apart, of which the mean counts; None
                is half a window, 0 hears only the part that training would have taken.
            on_error: "raise", or "skip" for clips that cannot be read, or whose word or age in the table is unknown to
                the model; the answer says which.
            batch_size: how many windows at once.

        Raises:
            MediaError, DatasetError: a clip cannot be used, or there is none.
            ParameterError: a word or an age is given that the model does not know, one that it needs is not given, or
                not as many as there are files.
        """
        kept, heard, seconds, skipped = self._heard(files, word, age, hop, on_error, batch_size)
        values = torch.stack([answers(each.logits.double()).mean(dim=0) for each in heard]).numpy()
        regression = self.card.task == "regression"
        names = () if regression else self.card.names
        said = tuple(values[:, 0].tolist()) if regression else tuple(names[best] for best in values.argmax(axis=1))
        windows = np.array([len(each.logits) for each in heard])
        return Table(tuple(kept), said, values, names, np.array(seconds), windows, tuple(skipped))

    def embed(
        self,
        files: Files,
        *,
        word: str | Sequence[str] = "",
        age: float | int | Sequence[float | int] | None = None,
        hop: float | int | None = None,
        on_error: str = "raise",
        batch_size: int = 16,
    ) -> Embeddings:
        """A vector for each clip; arguments and errors are those of `predict`."""
        kept, heard, _, skipped = self._heard(files, word, age, hop, on_error, batch_size)
        values = torch.stack([each.embeddings.mean(dim=0) for each in heard]).numpy()
        return Embeddings(tuple(kept), values, tuple(skipped))

    def vote(
        self, file: str | Path | Recording, *, word: str = "", age: float | int | None = None,
        hop: float | int | None = None,
    ) -> Vote:  # fmt: skip
        """The answer of each window of a clip, and their mean; arguments and errors are those of `predict`."""
        sound = self._one(file, word, age, whole=True)
        return vote(self.model, sound.waveform, self.card.seconds, hop, word=sound.word, age=sound.age)

    def evidence(
        self,
        file: str | Path | Recording,
        *,
        word: str = "",
        age: float | int | None = None,
        label: str = "",
        method: str = "auto",
        width: float | int | None = None,
        steps: int | None = None,
        bands: int | None = None,
        batch_size: int | None = None,
    ) -> Evidence:
        """Where in a clip, as far as training would have heard it, an answer comes from.

        Args:
            file: one clip.
            word: that is said in it, where the model is told it.
            age: of the speaker, likewise.
            label: for which class the evidence is; "" for the one that the model names.
            method: "contributions", exact for a linear head; "occlusion", for any model; "auto": the first where the
                head is linear.
            width: of "occlusion", as are `steps`, `bands` and `batch_size`; None for what it has by default.
            steps: see `width`.
            bands: see `width`.
            batch_size: see `width`.

        Raises:
            ParameterError: another method, no such class, contributions of a model that has none, or of which
                something of occlusion is asked; several clips; see `predict`.
            MediaError: the clip cannot be read.
        """
        check_choice("method", method, ("auto", "contributions", "occlusion"))
        if method == "auto":
            method = "occlusion" if self.model.bends else "contributions"
        parts = {"width": width, "steps": steps, "bands": bands, "batch_size": batch_size}
        given = {name: value for name, value in parts.items() if value is not None}
        if given and method == "contributions":
            found = "given for contributions, whose parts are the model's frames"
            raise ParameterError(", ".join(given), found, "nothing of that sort", 'Or method="occlusion".')
        sound = self._one(file, word, age, whole=False)
        number = None if not label else self._class(label)
        asked = (self.model, sound, self._window(0)[0], self.card.labels, number)
        return contributions(*asked) if method == "contributions" else occlusion(*asked, **given)

    # From files to what the model hears

    def _heard(
        self, files: Files, word: Any, age: Any, hop: float | int | None, on_error: str, batch_size: int
    ) -> tuple[list[str], list[Heard], list[float], list[AvlibError]]:
        check_choice("on_error", on_error, POLICIES)
        recordings = self._recordings(files, on_error)
        given = self._given(word, age, len(recordings))
        kept, seconds, skipped = [], [], []
        samples, step = self._window(hop)

        def attempt(task: Callable, *values: Any, **how: Any) -> Any:
            try:
                return task(*values, **how)
            except (MediaError, DatasetError) as error:
                if on_error == "raise":
                    raise
                skipped.append(error)
                return None

        # all words and ages before the first sound: what is wrong with them shows at once
        known = [attempt(self._numbers, recording, *pair) for recording, pair in zip(recordings, given, strict=True)]

        def sounds() -> Iterator[Sound]:
            for recording, numbers in zip(recordings, known, strict=True):
                if numbers is None:
                    continue
                sound = attempt(self._sound, recording, *numbers, whole=step > 0)
                if sound is not None:
                    kept.append(str(recording.path))
                    seconds.append(len(sound.waveform) / SAMPLE_RATE)
                    yield sound

        heard = list(listen(self.model, sounds(), samples=samples, hop=step, batch_size=batch_size))
        if not heard:
            raise DatasetError("files", "none can be used", "at least one", describe(skipped, len(recordings)))
        return kept, heard, seconds, skipped

    def _window(self, hop: float | int | None) -> tuple[int, int]:
        return in_samples(self.card.seconds, hop)

    def _recordings(self, files: Files, on_error: str = "raise") -> list[Recording]:
        if isinstance(files, Recording):
            return [files]
        if isinstance(files, Sequence) and not isinstance(files, str):
            found = [recording for each in files for recording in self._recordings(each, on_error)]
        else:
            if not str(files):  # a path of that would be the folder in which one is
                raise ParameterError("files", "none is named", "a sound or video, a folder or a table")
            if on_error == "skip" and not Path(files).exists():
                return [Recording(Path(files), "")]  # left out when it is to be read
            path = existing(files)
            if path.suffix.lower() in _TABLES:
                return read_recordings(path, target="path", on_error="skip")  # a missing file is an error of its own
            names = [name for name, _ in files_in(path, SOUND_SUFFIXES | VIDEO_SUFFIXES)] if path.is_dir() else [path]
            found = [Recording(name, "") for name in names]
        if not found:
            raise DatasetError(files or "files", "no sound or video in it", "at least one")
        return found

    def _one(self, file: Files, word: str, age: float | int | None, *, whole: bool) -> Sound:
        recordings = self._recordings(file)
        if len(recordings) != 1:
            raise ParameterError("file", f"{len(recordings)} recordings in {file}", "one", "`predict` takes several.")
        ((said, years),) = self._given(word, age, 1)
        return self._sound(recordings[0], *self._numbers(recordings[0], said, years), whole=whole)

    def _given(self, word: Any, age: Any, count: int) -> list[tuple[str, float | int | None]]:
        """The word and the age that are given for each clip. What the model does not know is not the clips' fault."""
        given = {"word": _for_each("word", word, count), "age": _for_each("age", age, count)}
        for name in self.model.needs:
            for value in set(given[name]) - {"", None}:
                try:
                    if name == "word":
                        word_index(Recording(Path(), "", value), self.card.words)
                    else:
                        age_index(value, self.card.ages)
                except DatasetError as error:
                    raise ParameterError(name, error.found, error.expected) from error
        return list(zip(*given.values(), strict=True))

    def _numbers(self, recording: Recording, word: str, age: float | int | None) -> tuple[int, int]:
        """Of the word and the age of a clip, as far as the model is told them."""
        needed, numbers = self.model.needs, [NOT_TOLD, NOT_TOLD]
        if "word" in needed:
            if not (word or recording.word):
                known = ", ".join(self.card.words[:8])
                raise ParameterError("word", f"none for {recording}", f"one that the model knows, such as {known}")
            numbers[0] = word_index(replace(recording, word=word or recording.word), self.card.words)
        if "age" in needed:
            years = recording.age if age is None else age
            if years is None:
                raise ParameterError("age", f"none for {recording}", "in years: this model is told it")
            numbers[1] = age_index(years, self.card.ages)
        return numbers[0], numbers[1]

    def _sound(self, recording: Recording, word: int, age: int, *, whole: bool) -> Sound:
        """The clip; not whole, the part that training would have taken ("random": the middle)."""
        samples = self._window(0)[0]
        if whole or self.card.crop != "start":
            waveform = media.read_audio(recording.path, SAMPLE_RATE)
            start = 0 if whole else max(0, len(waveform) - samples) // 2
            return Sound(waveform[start:] if whole else waveform[start : start + samples], word, age)
        return Sound(media.read_audio(recording.path, SAMPLE_RATE, seconds=self.card.seconds), word, age)

    def _class(self, label: str) -> int:
        if self.card.task == "regression" or label not in self.card.names:
            known = ", ".join(self.card.names) if self.card.task == "classification" else '"": a regression has none'
            raise ParameterError("label", repr(label), known)
        return self.card.names.index(label)


def _for_each(name: str, value: Any, count: int) -> Sequence:
    """One value for each file."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ParameterError(name, f"{len(value)}", f"one, or one for each of {count} files")
    return value

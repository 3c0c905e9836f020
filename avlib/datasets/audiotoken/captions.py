"""What a scene shows, in few plain words: for a text-to-image model that is trained on the built-in scenes.

Only what a single frame shows is said, so the rate is not. What is said by default is heard as well: the kind, the size
by the pitch, the colour by how long and how bright a note rings. The place is seen, but a mono sound does not tell it.
"""

from __future__ import annotations

from ...clips import KINDS, Truth

SIZES = ("small", "large")  # below and above the middle of what there is
COLOURS = ("blue", "purple", "pink", "orange", "yellow")  # the nearest of the five that the ramp of hues goes through
PLACES = ("on the left", "in the middle", "on the right")  # thirds of where the thing may stand

# What is seen where the kind is the name of a sound rather than of a thing.
_THINGS = {kind: kind for kind in KINDS} | {"rain": "bowl in the rain", "string": "lute with a string"}


def attributes(truth: Truth) -> dict[str, str]:
    """The attributes of a scene that one frame shows, each as one of a few words.

    Returns:
        "kind" (one of `avlib.clips.KINDS`), "size" (one of `SIZES`), "colour" (of `COLOURS`), "place" (of `PLACES`).
    """
    return {
        "kind": truth.kind,
        "size": _nearest(SIZES, truth.size * len(SIZES)),
        "colour": _nearest(COLOURS, truth.hue * (len(COLOURS) - 1) + 0.5),
        "place": _nearest(PLACES, truth.position * len(PLACES)),
    }


def caption(truth: Truth, place: bool = False) -> str:
    """A scene in words: "a small blue ball", "a large pink bowl in the rain".

    Args:
        truth: of the scene.
        place: whether to say where it is, as "a small blue ball on the left".
    """
    words = attributes(truth)
    return phrase(words["kind"], words["size"], words["colour"], words["place"] if place else "")


def phrase(kind: str, size: str, colour: str, place: str = "") -> str:
    """The caption of these attributes; for all captions that there are, as a tokenizer or a classifier needs them."""
    return " ".join(filter(None, ("a", size, colour, _THINGS[kind], place)))


def vocabulary() -> list[str]:
    """Every word that a caption can have, sorted; 25 of them."""
    phrases = [phrase(kind, SIZES[0], COLOURS[0]) for kind in KINDS]
    return sorted({word for text in (*phrases, *SIZES, *COLOURS, *PLACES) for word in text.split()})


def _nearest(words: tuple[str, ...], step: float | int) -> str:
    return words[min(int(step), len(words) - 1)]

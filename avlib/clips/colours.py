"""Colours: the ramp of hues by which what sounds is painted, the muted rest, and how light and shade change them."""

from __future__ import annotations

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]
Paint = tuple[Colour, Colour]  # where the light falls (upper left), where it does not (lower right)

# From dark blue to yellow; lightness rises all the way, so that it reads without seeing red or green.
HUES = ((0.13, 0.18, 0.56), (0.42, 0.17, 0.66), (0.78, 0.23, 0.50), (0.93, 0.47, 0.25), (0.99, 0.83, 0.22))
WOOD, DARK_WOOD, BRASS = (0.60, 0.52, 0.45), (0.42, 0.36, 0.33), (0.74, 0.68, 0.58)
INK, STEEL, CREAM, WHITE = (0.20, 0.20, 0.25), (0.50, 0.52, 0.57), (0.95, 0.91, 0.84), (1.0, 1.0, 1.0)
NIGHT = (0.12, 0.11, 0.20)


def mix(first: Colour, second: Colour, share: float | int) -> Colour:
    """The colour that lies `share` of the way from `first` to `second`."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def hue_colour(hue: float | int) -> Colour:
    """The colour of a hue in [0, 1]: dark blue, violet, rose, orange, yellow."""
    step = min(int(hue * (len(HUES) - 1)), len(HUES) - 2)
    return mix(HUES[step], HUES[step + 1], hue * (len(HUES) - 1) - step)


def lit(colour: Colour, depth: float | int = 1.0) -> Paint:
    """The two ends of a soft shade: warm light above, cool shadow below; `depth` says how far they are apart."""
    return mix(colour, (1.0, 0.96, 0.86), 0.22 * depth), mix(colour, (0.14, 0.12, 0.30), 0.30 * depth)

"""The colours of all pictures, one for each meaning, for colour-blind readers.

The hues are those of Okabe and Ito, "Color Universal Design" (2008).
"""

AUDIO = "#0072B2"  # blue: everything that comes from the sound
IMAGE = "#D55E00"  # vermilion: everything that comes from the pictures
JOINT = "#009E73"  # green: where both have met
CHOSEN = "#E69F00"  # orange: what the text is talking about
OTHER = "#56B4E9"  # sky blue: a second thing of the same kind
INK = "#222222"  # text and axes
MASKED = "#B3B3B3"  # grey: masked, padded, or left out
PAPER = "#FFFFFF"

SPECTROGRAM = "magma"  # a colour map: dark is quiet
SIGNED = "RdBu_r"  # a colour map for values on both sides of zero

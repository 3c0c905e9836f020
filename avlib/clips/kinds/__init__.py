"""The eight kinds of event, one short module each.

A kind says how low its largest one sounds (`LOWEST`, Hz), how long the dullest and the brightest ring (`DECAY`,
seconds), how uneven its rhythm is (`LOOSENESS`), which notes it has (`STEPS`, ratios), how one `note` of it sounds
(mono, float64, from its onset on) and how to `draw` it at a moment.
"""

from . import ball, bell, bird, drum, engine, kettle, rain, string

BY_NAME = {
    "ball": ball, "bell": bell, "bird": bird, "drum": drum,
    "engine": engine, "kettle": kettle, "rain": rain, "string": string,
}  # fmt: skip
KINDS = tuple(BY_NAME)

"""Sound and video files to tensors and back, through PyAV's FFmpeg.

A file is decoded once, in order: frame 57 is the 57th picture that a player shows, whatever the header counts. A file
that ends before its header promises is refused, not padded. Times are in seconds.

Parity with published pipelines: `read_audio(path, channel=0)` differs from `ffmpeg -ar 16000` and `sox remix 1` by no
more than the rounding of the 16-bit file between them, and frames equal OpenCV's bit for bit.
"""

from .container import AudioStream, MediaInfo, VideoStream, probe
from .sound import iterate_audio, read_audio
from .steady import SteadyVideo
from .video import Clip, iterate_frames, read_clip, read_frames
from .writing import write_video, write_wav

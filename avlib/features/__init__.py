"""Formulas from samples and pixels to model inputs. Nothing here opens a file.

CAV-MAE's two inputs are built from steps that can be called, and drawn, one by one:

    frames -> minus their mean -> pre-emphasis -> window -> power spectrum -> mel filters -> log    (`kaldi_fbank`)
    fbank -> padded or cut -> normalised                                                            (`cav_mae_fbank`)
    video -> ten frames (`cav_mae_frame_indices`) -> resized, cropped (`crop_pictures`)
          -> normalised (`normalize_pictures`)                                                      (`cav_mae_image`)

BEATs, AudioToken's encoder, takes the same fbank with another window, on the scale of 16-bit samples: `beats_fbank`.
Classifiers of sounds take `whisper_log_mel`, or `resnet_log_mel` as a picture of 224 x 224: other filters, and a hop
that follows from the clip's length (`resnet_hop_length`).
Singing voice conversion takes `svc_log_mel` at 44.1 kHz, aligned with content units by `mel2ph`.

Augmentation: `mix_waveforms` before the fbank, `mask_bands` on it, `add_noise` and `roll_time` on the normalised one,
`soft_labels` and `mix` on labels.

Sources: Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023, and its code (YuanGongND/cav-mae,
`src/dataloader.py`, `src/preprocess`); Chen et al., "BEATs", ICML 2023, and its code (microsoft/unilm, `beats`);
Kaldi's `compute-fbank-feats` as torchaudio reproduces it; Radford et al., "Robust Speech Recognition via Large-Scale
Weak Supervision", ICML 2023, as transformers' WhisperFeatureExtractor has its features.
"""

from .augmentation import add_noise, mask_bands, mix, mix_waveforms, roll_time, soft_labels
from .faces import check_boxes, crop_face, face_places, paste_face, ping_pong
from .harmonics import harmonics
from .lengths import Moments, check_sound, valid_mask, without_padding
from .pictures import (
    IMAGE_MEAN,
    IMAGE_STD,
    cav_mae_frame_indices,
    cav_mae_image,
    crop_pictures,
    denormalize_pictures,
    normalize_pictures,
)
from .singing import (
    SVC_FLOOR,
    SVC_HOP,
    SVC_SAMPLE_RATE,
    compare_ranges,
    log10_to_ln,
    mel2ph,
    mel2ph_nearest,
    spectrogram_range,
    svc_frames,
    svc_log_mel,
    svc_units,
)
from .spectrograms import (
    BEATS_MEAN,
    BEATS_SAMPLE_RATE,
    CAV_MAE_FRAMES,
    CAV_MAE_MEAN,
    CAV_MAE_MELS,
    CAV_MAE_STD,
    LOG_FLOOR,
    SAMPLE_RATE,
    WHISPER_HOP,
    WHISPER_N_FFT,
    WHISPER_SAMPLE_RATE,
    beats_fbank,
    cav_mae_fbank,
    cut_frames,
    empty_filters,
    floored_log,
    frame_geometry,
    kaldi_fbank,
    mel_filters,
    power_spectrum,
    preemphasize,
    remove_mean,
    resnet_hop_length,
    resnet_log_mel,
    speaker_mel,
    spectrogram_filters,
    vocoder_log_mel,
    whisper_log_mel,
    window_function,
)
from .units import check_units, deduplicate, run_lengths
from .words import word_difficulty

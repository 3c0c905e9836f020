"""Whisper's encoder at any length: equal to the published one where that has an answer, and consistent where not."""

import math

import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avlib.errors import ParameterError, ShapeError, TooShortError
from avlib.models.classifiers import encode_whisper, whisper_layers

POSITIONS = 30


def tiny_encoder(positions=POSITIONS, **changes):
    torch.manual_seed(0)
    settings = {"num_mel_bins": 80, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2}
    encoder = WhisperEncoder(WhisperConfig(**settings, encoder_ffn_dim=32, max_source_positions=positions, **changes))
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)  # biases too, so that a wrong padding shows
    return encoder.eval()


def mel(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_full_length_is_the_published_encoder():
    encoder = tiny_encoder()
    log_mel = mel(3, 80, 2 * POSITIONS)
    with torch.no_grad():
        expected = encoder(log_mel).last_hidden_state
        assert torch.equal(encode_whisper(encoder, log_mel), expected)


def test_a_shorter_input_is_the_encoder_with_its_table_cut():
    encoder, cut = tiny_encoder(), tiny_encoder(11)
    weights = encoder.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:11]
    cut.load_state_dict(weights)
    log_mel = mel(2, 80, 22)
    with torch.no_grad():
        torch.testing.assert_close(encode_whisper(encoder, log_mel), cut(log_mel).last_hidden_state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("columns", [1, 2, 21, 299, 301])
def test_positions_are_half_the_columns_rounded_up(columns):
    with torch.no_grad():
        states = encode_whisper(tiny_encoder(200), mel(2, 80, columns))
    assert states.shape == (2, math.ceil(columns / 2), 16)
    assert states.isfinite().all()


def test_an_odd_number_of_columns_is_one_more_of_zeros_before_the_second_convolution():
    """With odd T the published convolutions give ceil(T / 2) by themselves: here slowly, position by position."""
    encoder, log_mel = tiny_encoder(), mel(1, 80, 7)
    with torch.no_grad():
        first = torch.nn.functional.gelu(encoder.conv1(log_mel))[0]  # (16, 7)
        padded = torch.cat([first.new_zeros(16, 1), first, first.new_zeros(16, 2)], dim=1)
        weight, bias = encoder.conv2.weight, encoder.conv2.bias
        entered = [(weight * padded[None, :, 2 * p : 2 * p + 3]).sum((1, 2)) + bias for p in range(4)]
        entered = torch.nn.functional.gelu(torch.stack(entered)) + encoder.embed_positions.weight[:4]
        torch.testing.assert_close(whisper_layers(encoder, log_mel)[0][0], entered, rtol=0, atol=1e-6)


def test_beyond_the_table_it_is_continued_by_sinusoids():
    encoder, longer = tiny_encoder(), tiny_encoder(2 * POSITIONS)
    weights = encoder.state_dict()
    table = torch.empty(2 * POSITIONS, 16)
    for position in range(2 * POSITIONS):
        for channel in range(8):
            angle = position / 10000 ** (channel / 7)
            table[position, channel], table[position, 8 + channel] = math.sin(angle), math.cos(angle)
    torch.testing.assert_close(table[:POSITIONS], encoder.embed_positions.weight, rtol=0, atol=1e-5)
    longer.load_state_dict(weights | {"embed_positions.weight": table})
    log_mel = mel(1, 80, 4 * POSITIONS)
    with torch.no_grad():
        expected = longer(log_mel).last_hidden_state
        torch.testing.assert_close(encode_whisper(encoder, log_mel), expected, rtol=0, atol=1e-5)


def test_the_encoders_own_table_is_used_even_if_it_was_trained():
    encoder = tiny_encoder()
    log_mel = mel(1, 80, 20)
    with torch.no_grad():
        before = encode_whisper(encoder, log_mel)
        encoder.embed_positions.weight += 1 + torch.arange(16)
        assert (encode_whisper(encoder, log_mel) - before).abs().max() > 0.01


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padded_clip_gets_what_it_gets_alone(attention):
    encoder = tiny_encoder(attn_implementation=attention)
    log_mel, lengths = mel(4, 80, 41), torch.tensor([41, 20, 7, 1])
    with torch.no_grad():
        together = whisper_layers(encoder, log_mel, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = whisper_layers(encoder, log_mel[row : row + 1, :, :length])
            for state, expected in zip(together, alone, strict=True):
                found = state[row : row + 1, : math.ceil(length / 2)]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter_even_nan():
    encoder, log_mel, lengths = tiny_encoder(), mel(2, 80, 20), torch.tensor([20, 8])
    with torch.no_grad():
        expected = encode_whisper(encoder, log_mel, lengths)
        log_mel[1, :, 8:] = torch.nan
        found = encode_whisper(encoder, log_mel, lengths.tolist())
    assert torch.equal(found, expected) and found.isfinite().all()


def test_without_lengths_padding_is_heard():
    encoder, log_mel = tiny_encoder(), mel(1, 80, 20)
    padded = torch.nn.functional.pad(log_mel, (0, 20))
    with torch.no_grad():
        difference = encode_whisper(encoder, padded)[:, :10] - encode_whisper(encoder, log_mel)
    assert difference.abs().max() > 1e-3


def test_layers_are_what_transformers_calls_hidden_states():
    encoder, log_mel = tiny_encoder(), mel(2, 80, 2 * POSITIONS)
    with torch.no_grad():
        states = whisper_layers(encoder, log_mel)
        expected = encoder(log_mel, output_hidden_states=True).hidden_states
    assert len(states) == len(expected) == 3
    for state, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(state, theirs, rtol=0, atol=1e-6)


def test_a_layer_that_is_dropped_is_passed_and_states_stay_as_many():
    encoder = tiny_encoder(encoder_layerdrop=1.0).train()
    states = whisper_layers(encoder, mel(1, 80, 20))
    assert len(states) == 3
    torch.testing.assert_close(states[1], states[0])
    torch.testing.assert_close(states[2], encoder.layer_norm(states[0]))


def test_gradients_reach_the_input_and_not_the_padding():
    encoder, log_mel = tiny_encoder(), mel(1, 80, 20).requires_grad_()
    encode_whisper(encoder, log_mel, torch.tensor([8]))[:, :4].sum().backward()
    assert log_mel.grad[..., :8].abs().sum() > 0
    assert log_mel.grad[..., 8:].abs().sum() == 0


def test_double_precision_is_kept():
    states = encode_whisper(tiny_encoder().double(), mel(1, 80, 70).double(), torch.tensor([70]))
    assert states.dtype == torch.float64


def test_other_mel_rows_are_refused():
    with pytest.raises(ShapeError, match=r"log_mel: 78 rows; expected 80"):
        encode_whisper(tiny_encoder(), mel(1, 78, 20))


def test_no_column_is_refused():
    with pytest.raises(TooShortError, match="no column"):
        encode_whisper(tiny_encoder(), mel(1, 80, 0))


@pytest.mark.parametrize("lengths", [[21, 20], [0, 20], [20]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ParameterError, match="lengths"):
        encode_whisper(tiny_encoder(), mel(2, 80, 20), torch.tensor(lengths))

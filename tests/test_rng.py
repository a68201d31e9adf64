"""Random streams: one for each purpose and key, the same everywhere, none shared."""

import numpy as np
import pytest
import torch

from nrcg.errors import NrcgError
from nrcg.rng import keyed_generator, keyed_seed, seed_torch

KEYS = [(), (0,), (7,), (7, 0), (7, 0, 0), (0, 7), (2**32 + 5,), (5, 1), (1, 5), (2**64,), (1, 2**32), (71,), (7, 1)]
STREAMS = [(purpose, *key) for purpose in ("sampling", "forward noise", "sampling, 7", "") for key in KEYS]


def draws(generator: torch.Generator) -> tuple[float, ...]:
    return tuple(torch.randn(4, generator=generator).tolist())


def test_no_two_purposes_or_keys_share_a_stream():
    assert len({keyed_seed(*stream) for stream in STREAMS}) == len(STREAMS)
    assert len({draws(keyed_generator(*stream)) for stream in STREAMS}) == len(STREAMS)


def test_a_stream_is_a_function_of_purpose_and_key_alone():
    torch.manual_seed(3)
    first = draws(keyed_generator("sampling", 7, 1))
    keyed_generator("sampling", 7, 2)
    torch.rand(5)
    assert draws(keyed_generator("sampling", np.int64(7), np.uint8(1))) == first
    assert keyed_seed("sampling", 7, 1) == 8659648844543466848  # on every machine, in every version


def test_a_stream_is_more_than_the_32_bits_of_a_seed_that_torch_uses_on_a_cpu(monkeypatch):
    assert draws(torch.Generator().manual_seed(5)) == draws(torch.Generator().manual_seed(5 + 2**32))
    monkeypatch.setattr("nrcg.rng.keyed_seed", lambda *_: 5)
    assert draws(keyed_generator("sampling", 1)) != draws(keyed_generator("sampling", 2))


def test_a_stream_is_a_mersenne_twister_of_these_words():
    """NumPy's own twister, with the words that our generator holds, draws the same numbers."""
    generator = keyed_generator("sampling", 7)
    words = generator.get_state()[24 : 24 + 8 * 624].numpy().view(np.uint64)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words.astype(np.uint32), "pos": 624}}
    expected = twister.random_raw(2000) % 2**27
    assert torch.randint(2**27, (2000,), generator=generator).tolist() == expected.tolist()


def test_torchs_global_generator_has_the_stream_of_its_key():
    seed_torch("classifier dropout", 0, 4)
    assert tuple(torch.randn(4).tolist()) == draws(keyed_generator("classifier dropout", 0, 4))


@pytest.mark.parametrize(
    "stream", [("sampling", -1), ("sampling", 0, -7), ("sampling", 1.0), ("sampling", "1"), (7, 0)]
)
def test_other_keys_are_refused(stream):
    with pytest.raises(NrcgError, match="random draw"):
        keyed_generator(*stream)

"""Bits, codes and parts of tokens, in numpy and PyTorch."""

import numpy as np
import pytest

from tokengrid import lfq

TOKENS = np.array([[0, 1, 2], [131_072, 262_143, 77]])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_there_and_back(kind):
    make = np.asarray if kind == "numpy" else pytest.importorskip("torch").as_tensor
    tokens = make(TOKENS)
    bits = lfq.tokens_to_bits(tokens, 18)
    assert type(bits) is type(tokens) and tuple(bits.shape) == (2, 3, 18) and str(bits.dtype).endswith("uint8")
    # The least significant bit is channel 0.
    assert bits[0, 1].tolist() == [1] + [0] * 17 and bits[1, 0].tolist() == [0] * 17 + [1]
    assert lfq.bits_to_tokens(bits).tolist() == TOKENS.tolist()
    codes = lfq.tokens_to_codes(tokens, 18)
    assert str(codes.dtype).endswith("float32") and codes[0, 0].tolist() == [-1.0] * 18
    assert lfq.codes_to_tokens(codes * 0.3).tolist() == TOKENS.tolist()
    low, high = lfq.split(tokens, 6)
    assert low.tolist() == (TOKENS % 64).tolist() and high.tolist() == (TOKENS // 64).tolist()
    assert lfq.join(low, high, 6).tolist() == TOKENS.tolist()
    assert str(low.dtype).endswith("int64")


def test_what_is_out_of_range_is_refused():
    for call, words in [
        (lambda: lfq.tokens_to_bits([4], 2), r"not all in 0 to 2\*\*2 - 1"),
        (lambda: lfq.tokens_to_bits([-1], 2), "not all in"),
        (lambda: lfq.tokens_to_bits([1], 25), "1 to 24 bits"),
        (lambda: lfq.bits_to_tokens([0, 2]), "0 and 1"),
        (lambda: lfq.join([64], [0], 6), "low are not all"),
        (lambda: lfq.split([1], -1), "low_bits is -1"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="whole numbers"):
        lfq.tokens_to_bits([0.5], 2)

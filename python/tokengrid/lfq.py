"""Tokens of a lookup-free quantizer: integers, bits and signs, and the two parts of an asymmetric factorization.

Channel 0 of the tokenizer's output is the least significant bit of the token. All functions take numpy arrays and PyTorch tensors
of any shape, on any device, and return the same kind.
"""

from __future__ import annotations

from typing import Any

__all__ = ["bits_to_tokens", "codes_to_tokens", "join", "split", "tokens_to_bits", "tokens_to_codes"]

#: The most bits that a token has.
BITS_MAX = 24


def tokens_to_bits(tokens: Any, num_bits: int) -> Any:
    """Tokens ``[...]`` of ``num_bits`` bits as 0 and 1, ``uint8 [..., num_bits]``: bit 0 (the least significant) first."""
    library, tokens = _integers(tokens, "tokens")
    _check_bits(num_bits)
    _check_range(tokens, num_bits, "tokens")
    bits = (tokens[..., None] >> _arange(library, num_bits, tokens)) & 1
    return bits.to(library.uint8) if hasattr(bits, "to") else bits.astype(library.uint8)


def bits_to_tokens(bits: Any) -> Any:
    """Bits ``[..., num_bits]`` (0 and 1, or booleans) as tokens, ``int64 [...]``."""
    library, bits = _integers(bits, "bits")
    _check_bits(bits.shape[-1])
    if bool(((bits != 0) & (bits != 1)).any()):
        raise ValueError("bits are 0 and 1")
    return (bits << _arange(library, bits.shape[-1], bits)).sum(-1)


def tokens_to_codes(tokens: Any, num_bits: int) -> Any:
    """Tokens ``[...]`` as the codebook's vectors, ``float32 [..., num_bits]`` of -1 and +1: what a decoder takes."""
    bits = tokens_to_bits(tokens, num_bits)
    return (bits.float() if hasattr(bits, "float") else bits.astype("float32")) * 2 - 1


def codes_to_tokens(codes: Any) -> Any:
    """An encoder's output ``[..., num_bits]`` as tokens, ``int64 [...]``: a bit is 1 where the number is above 0."""
    return bits_to_tokens(codes > 0)


def split(tokens: Any, low_bits: int) -> tuple[Any, Any]:
    """Tokens as ``(low, high)``, both ``int64`` of the same shape: ``tokens % 2**low_bits`` and ``tokens // 2**low_bits``."""
    _, tokens = _integers(tokens, "tokens")
    if not 0 <= low_bits <= BITS_MAX:
        raise ValueError(f"low_bits is {low_bits}, expected 0 to {BITS_MAX}")
    _check_range(tokens, BITS_MAX, "tokens")
    return tokens & ((1 << low_bits) - 1), tokens >> low_bits


def join(low: Any, high: Any, low_bits: int) -> Any:
    """The inverse of :func:`split`: ``low + high * 2**low_bits``, ``int64``."""
    _, low = _integers(low, "low")
    _, high = _integers(high, "high")
    if not 0 <= low_bits <= BITS_MAX:
        raise ValueError(f"low_bits is {low_bits}, expected 0 to {BITS_MAX}")
    _check_range(low, low_bits, "low")
    _check_range(high, BITS_MAX - low_bits, "high")
    return low | (high << low_bits)


def _integers(values: Any, name: str) -> tuple[Any, Any]:
    """The library of ``values``, and them as int64."""
    if type(values).__module__.split(".")[0] == "torch":
        import torch

        if values.is_floating_point() or values.is_complex():
            raise TypeError(f"{name} are {values.dtype}, expected whole numbers")
        return torch, values.long()
    import numpy

    values = numpy.asarray(values)
    if values.dtype.kind not in "iub":
        raise TypeError(f"{name} are {values.dtype}, expected whole numbers")
    return numpy, values.astype(numpy.int64)


def _arange(library: Any, count: int, like: Any) -> Any:
    return library.arange(count, device=like.device) if hasattr(like, "numel") else library.arange(count)


def _check_bits(num_bits: int) -> None:
    if not 1 <= num_bits <= BITS_MAX:
        raise ValueError(f"a token has 1 to {BITS_MAX} bits, not {num_bits}")


def _check_range(values: Any, num_bits: int, name: str) -> None:
    if bool(((values < 0) | (values >> num_bits != 0)).any()):
        raise ValueError(f"{name} are not all in 0 to 2**{num_bits} - 1")

"""Attention dropout that does not depend on who computes it: one coin per (seed, head, i, j).

The coin of a pair is a hash of its two positions, so that every round, tile size and device tosses
the same one, a pair seen twice is dropped twice or never, and a backward needs no stored mask.
"""

from numbers import Integral

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_WORD = 0xFFFFFFFF
_COIN_BITS = 24


def check_dropout(dropout: float, seed: object) -> None:
    """Refuse what is no probability of dropping, or no seed; all pairs cannot be dropped."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}: it is a probability")
    if isinstance(seed, Tensor):
        whole = seed.numel() == 1 and not (seed.is_floating_point() or seed.is_complex())
    else:
        whole = seed is None or (isinstance(seed, int | Integral) and -(1 << 63) <= seed < 1 << 63)
    if not whole:
        raise ValueError(
            f"seed must be a whole number of 64 bits, from -2^63 to 2^63 - 1, got {seed!r}: "
            "draw one below 2^63, or leave it out"
        )


def draw_seed() -> Int[Tensor, ""]:
    """Draw a dropout seed from the global generator; a tensor, which a graph can hold."""
    return torch.randint(1 << 62, ())


def pair_keys(
    seed: int | Int[Tensor, ""], batch: int, heads: int, length: int, device: torch.device
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]:
    """Make the two 32-bit keys of every position, as query and as key; rows are batch * heads."""
    seed = torch.as_tensor(seed)
    words = torch.stack([seed & _WORD, (seed >> 32) & _WORD]).to(torch.int32).to(device)
    rows = torch.arange(batch * heads, dtype=torch.int32, device=device)
    of_batch = _mix(_mix(_mix(words[0]) ^ words[1]) ^ (rows // heads))
    of_head = _mix(of_batch + rows % heads)[:, None]
    position = torch.arange(length, dtype=torch.int32, device=device)
    return _mix(of_head + 2 * position), _mix(of_head + 2 * position + 1)


def kept(
    query_keys: Int[Tensor, "*batch queries"],
    key_keys: Int[Tensor, "*batch keys"],
    dropout: float,
) -> Bool[Tensor, "*batch queries keys"]:
    """Toss the coin of every pair: True, with probability 1 - dropout, where it is kept."""
    coin = _mix(query_keys.unsqueeze(-1) ^ key_keys.unsqueeze(-2))
    coin = _shift(coin, 32 - _COIN_BITS)
    return coin >= round(dropout * (1 << _COIN_BITS))


def kept_share(
    query_keys: Int[Tensor, "*batch queries"],
    key_keys: Int[Tensor, "*batch keys"],
    dropout: float,
    dtype: torch.dtype,
) -> Float[Tensor, "*batch queries keys"]:
    """Return what a pair's weight is multiplied by: 1 / (1 - dropout) where kept, else 0."""
    return kept(query_keys, key_keys, dropout).to(dtype).mul_(1 / (1 - dropout))


def _shift(word: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """Shift an int32 right and fill with zeros: torch's >> repeats the sign."""
    return (word >> bits) & (_WORD >> bits)


def _mix(word: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Scramble 32 bits one to one (multiply and xor-shift; products wrap around)."""
    word = (word ^ _shift(word, 16)) * 0x7FEB352D
    word = (word ^ _shift(word, 15)) * (0x846CA68B - (1 << 32))
    return word ^ _shift(word, 16)

"""Bucket numbers as letters: half the bytes of JSON's numbers, read by letters.js."""

import numpy as np
from jaxtyping import Int

MOST_LETTERS = 1_400_000
"""The most letters of bucket numbers that a page carries, so that it stays below two megabytes."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"


def digits_for(n_buckets: int) -> int:
    """Count the letters that every bucket's number takes."""
    digits, base = 1, len(_DIGITS)
    while base**digits < n_buckets:
        digits += 1
    return digits


def letters(buckets: Int[np.ndarray, " length"], n_buckets: int) -> str:
    """Write bucket numbers with a fixed number of letters each, highest first."""
    base = len(_DIGITS)
    places = [(buckets // base**place) % base for place in reversed(range(digits_for(n_buckets)))]
    return "".join(_DIGITS[letter] for letter in np.stack(places, -1).ravel())


def check_letters(n_numbers: int, n_buckets: int, most: int, way_out: str) -> None:
    """Refuse more numbers than a page carries, and say what to do instead."""
    n_letters = n_numbers * digits_for(n_buckets)
    if n_letters > most:
        raise ValueError(
            f"a page carries at most {most:,} letters of bucket numbers, got {n_letters:,}: "
            f"{way_out}"
        )

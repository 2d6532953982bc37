"""The sixteen tokens that run through all lessons: a sentence whose words come back."""

import torch
from jaxtyping import Float
from torch import Tensor

SENTENCE = "the cat sat on the mat and the dog sat on the log by the cat"
WORDS = tuple(SENTENCE.split())
"""Sixteen words; a word that comes back has nearly the same vector."""


def sixteen_tokens(d_head: int = 8, noise: float = 0.2) -> Float[Tensor, "1 1 16 d_head"]:
    """Make the query-key vectors of `WORDS`: one direction a word, and noise for each token.

    The vectors are float32 and the same everywhere. `noise` is the size of what is added, where a
    word's own vector has entries between -1 and 1.
    """
    generator = torch.Generator().manual_seed(16)
    vocabulary = sorted(set(WORDS))
    # Uniform numbers are equal on every machine, bit for bit; normal ones are not.
    of_word = torch.rand(len(vocabulary), d_head, generator=generator) * 2 - 1
    own = torch.rand(len(WORDS), d_head, generator=generator) * 2 - 1
    which = torch.tensor([vocabulary.index(word) for word in WORDS])
    return (of_word[which] + noise * own)[None, None]

"""A sequence of vectors to hash, given or made up, and its buckets under any hashing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reformer_core.hashing import draw_rotations, hash_generator, hash_vectors
from reformer_viz.measure.hashing import Hash, apply_hash
from reformer_viz.measure.words import count

N_KINDS, D_HEAD = 8, 16


@dataclass(frozen=True, eq=False)
class VectorSequence:
    """A snapshot of one sequence's vectors, and a direction in which noise would push each.

    Nothing here reads a model or draws from the global generator, so that it may be hashed and
    hashed again while something trains.
    """

    vectors: Float[Tensor, "heads length d_head"]
    push: Float[Tensor, "heads length d_head"]
    labels: tuple[str, ...] | None
    origin: str
    """Where the vectors come from, in words for the reader."""

    def hash(
        self, *, head: int, noise: float, n_buckets: int, n_hashes: int, seed: int, draw: int
    ) -> Int[Tensor, "1 1 rounds length"]:
        """Hash one head's vectors after adding noise, with the rotations of one draw.

        `noise` is the length of what is added, as a share of the vector's own, on average. More
        noise pushes a token further the same way, more rounds leave the earlier rounds as they are.
        """
        if n_hashes < 1:
            raise ValueError(f"n_hashes must be at least 1, got {n_hashes}")
        rotations = [
            self.rotations(n_buckets=n_buckets, seed=seed, round=round, draw=draw)
            for round in range(n_hashes)
        ]
        noisy = self.noisy(head=head, noise=noise)[None, None]
        return hash_vectors(noisy, torch.cat(rotations, dim=1), n_buckets)

    def hash_by(
        self, hash: Hash, *, head: int, noise: float | int, n_buckets: int | None = None
    ) -> tuple[Int[Tensor, "1 1 rounds length"], int]:
        """Hash one head's vectors, after adding noise, with the reader's own function.

        Returns the buckets and how many there are.
        """
        return apply_hash(hash, self.noisy(head=head, noise=noise)[None, None], n_buckets)

    def noisy(self, *, head: int, noise: float | int) -> Float[Tensor, "length d_head"]:
        """Return one head's vectors after adding noise: `noise` times their own length."""
        n_heads = len(self.vectors)
        if not 0 <= head < n_heads:
            raise ValueError(f"head must be in 0..{n_heads - 1}, got {head}: there are {n_heads}")
        if not 0 <= noise < float("inf"):
            raise ValueError(
                f"noise must be at least 0 and finite, got {noise}: it is a length, as a share of "
                f"the vector's own"
            )
        clean = self.vectors[head]
        return clean + noise * clean.norm(dim=-1, keepdim=True) * self.push[head]

    def rotations(
        self, *, n_buckets: int, seed: int, round: int, draw: int
    ) -> Float[Tensor, "1 1 d_head half_buckets"]:
        """Draw one round's directions, the same for the same three numbers."""
        d_head = self.vectors.shape[-1]
        return draw_rotations(1, 1, d_head, n_buckets, hash_generator(seed, round, draw))


def make_sequence(n_tokens: int, seed: int, d_head: int = D_HEAD) -> VectorSequence:
    """Make a word of random letters and say it twice; every letter is one direction."""
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    generator = torch.Generator().manual_seed(seed)
    letters = torch.nn.functional.normalize(
        torch.randn(N_KINDS, d_head, generator=generator), dim=-1
    )
    word = torch.randint(N_KINDS, ((n_tokens + 1) // 2,), generator=generator)
    text = word.repeat(2)[:n_tokens]
    vectors = letters[text][None]
    return VectorSequence(
        vectors=vectors,
        push=_pushes(vectors, generator),
        labels=tuple("ABCDEFGH"[letter] for letter in text),
        origin=(
            f"Made-up data, no model: a word of {count(len(word), 'letter')} said twice. Each of "
            f"the letters A to H is one random direction in {d_head} dimensions; noise is added to "
            f"every token."
        ),
    )


def take_sequence(
    vectors: Tensor | np.ndarray | Sequence, seed: int, labels: Iterable[str] | None = None
) -> VectorSequence:
    """Copy vectors "length d_head" or "heads length d_head", such as `qk[0]` of a traced layer."""
    vectors = tensor_of("vectors", vectors)
    shape = tuple(vectors.shape)
    if vectors.dim() not in (2, 3):
        raise ValueError(
            f'vectors must have the shape "length d_head" or "heads length d_head", got {shape}: '
            f"of a batch give one sequence, such as qk[0]"
        )
    if 0 in vectors.shape:
        raise ValueError(f"vectors must not be empty, got {shape}")
    vectors = vectors.to("cpu", torch.float32, copy=True)
    vectors = vectors if vectors.dim() == 3 else vectors[None]
    broken = (~vectors.isfinite()).nonzero()
    if len(broken):
        raise ValueError(
            f"vectors must be finite, got NaN or infinity at token {int(broken[0, 1])} of head "
            f"{int(broken[0, 0])}: look for the layer that made it"
        )
    heads, length, d_head = vectors.shape
    return VectorSequence(
        vectors=vectors,
        push=_pushes(vectors, torch.Generator().manual_seed(seed)),
        labels=None if labels is None else tuple(labels),
        origin=(
            f"Given vectors: {count(length, 'token')} of {count(d_head, 'number')}, heads: "
            f"{heads:,}."
        ),
    )


def tensor_of(name: str, given: object) -> Tensor:
    """Take numbers, in a tensor, an array or lists, as a tensor; refuse what are no numbers."""
    if isinstance(given, Tensor):
        return given.detach()
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} must be rows of equal length, got others: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be numbers, got {type(given).__name__}: give a tensor, an array or lists "
            f"of numbers"
        )
    return torch.as_tensor(array)


def _pushes(
    vectors: Float[Tensor, "heads length d_head"], generator: torch.Generator
) -> Float[Tensor, "heads length d_head"]:
    """Draw a random direction for every vector, of length 1 on average."""
    return torch.randn(vectors.shape, generator=generator) / vectors.shape[-1] ** 0.5

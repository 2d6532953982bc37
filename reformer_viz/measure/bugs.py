"""Mistakes that implementations make, as switches: what each changes in a picture and a gradient.

The right path is core's own. The wrong ones are written out here, densely, for a few dozen tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.attention import keys_from
from reformer_core.bucketing import plan_chunks
from reformer_core.hashing import draw_rotations, hash_generator, hash_vectors
from reformer_viz.measure.words import count, in_percent

DEFAULT_SEED = 18
"""With it all buckets are used, and every mistake shows in the sixteen tokens of the lessons."""
LONGEST = 128
"""The picture has a cell for each pair, and the wrong paths are dense."""
_SMALL = 1e-9  # in float64: what is left of rounding


@dataclass(frozen=True)
class Bug:
    """A mistake: what the code does, and how it shows."""

    title: str
    story: str
    clue: str


BUGS = {
    "no_minus_r": Bug(
        "forgot -R",
        "it numbers argmax(xR) instead of argmax([xR; -xR])",
        "half of the buckets stay empty",
    ),
    "unstable_sort": Bug(
        "unstable sort",
        "tokens of one bucket are sorted in any order, not in reading order",
        "within a bucket, slots do not grow with the position",
    ),
    "wraps": Bug(
        "look-back that wraps",
        "the first chunk looks back at the last one",
        "tokens of the first slots see some that they should not, and none is lost",
    ),
    "repeats": Bug(
        "repeats counted",
        "a pair weighs as often as rounds see it",
        "the picture is right and the output is not, unless there is only one round",
    ),
    "self_not_last": Bug(
        "self not last",
        "a token looks at itself beside the others",
        "the diagonal lights up",
    ),
    "fresh_hashes": Bug(
        "fresh hashes in the backward",
        "the backward pass hashes again, with other rotations",
        "everything is right but the gradient",
    ),
    "global_generator": Bug(
        "rotations from the global generator",
        "whoever draws a random number anywhere changes the buckets",
        "the same call gives something else the second time",
    ),
}
"""By name; `"none"` stands for no mistake."""

# Whoever guesses should not find them in the order of the list.
_SHUFFLED = [3, 6, 1, 5, 0, 2, 4]
MYSTERIES = {f"mystery {i + 1}": list(BUGS)[k] for i, k in enumerate(_SHUFFLED)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Symptoms:
    """What one sees of LSH attention with one mistake, or none, beside how it should be."""

    buckets: Int[np.ndarray, " length"]
    """Of the first round."""
    slot: Int[np.ndarray, " length"]
    """Each position's place in sorted order, in the first round."""
    n_buckets: int
    seen: Bool[np.ndarray, "rounds length length"]
    should: Bool[np.ndarray, "rounds length length"]
    output_error: float
    """Norm of the difference to the right output, over the norm of the right one."""
    gradient_error: float
    """The same for the backward's gradient, against that of the output that was computed."""
    repeats: bool
    """Whether a second call gives the same."""

    @property
    def lost(self) -> Bool[np.ndarray, "length length"]:
        """Pairs that some round should see, and none does."""
        return self.should.any(0) & ~self.seen.any(0)

    @property
    def extra(self) -> Bool[np.ndarray, "length length"]:
        """Pairs that some round sees, and none should."""
        return self.seen.any(0) & ~self.should.any(0)

    def describe(self) -> str:
        """Say all symptoms, and not what they mean."""
        rounds, length, _ = self.seen.shape
        itself = int(np.diagonal(self.seen.any(0)).sum())
        twice = "the same" if self.repeats else "something else"
        return (
            f"{count(rounds, 'round')} of {count(length, 'token')}; the first uses "
            f"{len(np.unique(self.buckets))} of {count(self.n_buckets, 'bucket')}. Of "
            f"{count(int(self.should.any(0).sum()), 'pair')} that should be seen "
            f"{int(self.lost.sum())} are not, and {int(self.extra.sum())} are that should not, "
            f"{itself} of them a token and itself. The output is {_off(self.output_error)}, the "
            f"gradient {_off(self.gradient_error)}. A second call gives {twice}."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Riddle:
    """The symptoms of one switch, and what a reader takes them for."""

    chosen: str
    symptoms: Symptoms
    guess: str | None

    @property
    def bug(self) -> str:
        """The name of what is on: "none", or one of `BUGS`."""
        return MYSTERIES.get(self.chosen, self.chosen)

    def describe(self) -> str:
        """Say the symptoms, and whether the guess is right."""
        secret = self.chosen in MYSTERIES
        on = self.chosen if secret or self.chosen == "none" else BUGS[self.chosen].title
        said = [f"Switched on: {on}.", self.symptoms.describe()]
        if self.chosen in BUGS:
            said.append(f"What it does: {BUGS[self.chosen].story}.")
        if secret and self.guess is None:
            said.append("Which one is it?")
        elif secret:
            said.append(_answer(self.guess, self.bug))
        return " ".join(said)


def measure_bug(
    qk: Float[Tensor, "length d_head"],
    bug: str = "none",
    *,
    n_buckets: int = 4,
    n_hashes: int = 2,
    chunk_length: int = 4,
    seed: int = DEFAULT_SEED,
) -> Symptoms:
    """Attend with one mistake (a name of `BUGS`, or "none"), forward and backward, beside without.

    Causal, across buckets within the window, as the authors' later configurations do, because there
    every mistake shows. Values are made up. Raises ValueError for an unknown mistake, and for more
    than 128 tokens or what is not finite.
    """
    length = len(qk)
    _check(bug, length)
    if not qk.isfinite().all():
        raise ValueError("qk must be finite, got NaN or infinity: look for the layer that made it")
    qk = qk.detach().to("cpu", torch.float64)
    generator = torch.Generator().manual_seed(seed)
    values, towards = torch.rand(2, *qk.shape, generator=generator, dtype=torch.float64)
    rule = {"n_buckets": n_buckets, "n_hashes": n_hashes, "chunk_length": chunk_length}

    def look(bug: str, draw: int = 0) -> Look:
        return _look(qk, bug, seed=seed, draw=draw, **rule)

    should = look("none")
    first, second = (look(bug, draw) for draw in ((1, 2) if bug == "global_generator" else (0, 0)))
    replayed = look(bug, 1) if bug == "fresh_hashes" else first
    right, _ = _run(qk, values, towards, should.seen, "none")
    output, gradient = _run(qk, values, towards, first.seen, bug)
    _, backward = _run(qk, values, towards, replayed.seen, bug)
    return Symptoms(
        buckets=first.buckets[0].numpy(),
        slot=first.slot[0].numpy(),
        n_buckets=n_buckets,
        seen=first.seen.numpy(),
        should=should.seen.numpy(),
        output_error=_relative(output, right),
        gradient_error=_relative(backward, gradient),
        repeats=torch.equal(first.seen, second.seen),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Who sees whom: in every round, and the sorting that it comes from."""

    buckets: Int[Tensor, "rounds length"]
    slot: Int[Tensor, "rounds length"]
    seen: Bool[Tensor, "rounds length length"]


def _look(
    qk: Float[Tensor, "length d_head"],
    bug: str,
    *,
    n_buckets: int,
    n_hashes: int,
    chunk_length: int,
    seed: int,
    draw: int,
) -> Look:
    """Hash, sort and cut, with a mistake or as core does."""
    rotations = draw_rotations(
        n_hashes, 1, qk.shape[1], n_buckets, hash_generator(seed, 0, draw)
    ).to(qk.dtype)
    buckets = hash_vectors(qk[None, None], rotations)
    if bug == "no_minus_r":
        buckets = _without_minus_r(qk[None, None], rotations)
    rule = {"chunk_length": chunk_length, "causal": True, "within_bucket": False}
    plan = plan_chunks(buckets, n_buckets=n_buckets, **rule)
    slot, seen = plan.slot[0, 0].long(), plan.visible()[0, 0]
    if bug == "unstable_sort":
        slot = _sorted_any_how(buckets[0, 0], seed)
        seen = _near(slot, chunk_length)
    if bug == "wraps":
        seen = _near(slot, chunk_length, wraps=True)
    if bug == "self_not_last":
        seen = _with_itself(seen)
    return Look(buckets=buckets[0, 0], slot=slot, seen=seen)


def _without_minus_r(
    vectors: Float[Tensor, "batch heads length d_head"],
    rotations: Float[Tensor, "heads rounds d_head half_buckets"],
) -> Int[Tensor, "batch heads rounds length"]:
    """Number the largest of xR alone."""
    return torch.einsum("bhld,hrdk->bhrlk", vectors, rotations).argmax(-1)


def _sorted_any_how(
    buckets: Int[Tensor, "rounds length"], seed: int
) -> Int[Tensor, "rounds length"]:
    """Sort by bucket, ties in any order, and return each position's slot."""
    ties = torch.rand(buckets.shape, generator=torch.Generator().manual_seed(seed))
    return (buckets + ties).argsort(-1).argsort(-1)


def _near(
    slot: Int[Tensor, "rounds length"], chunk_length: int, wraps: bool = False
) -> Bool[Tensor, "rounds length length"]:
    """Show earlier positions in a slot's own chunk and the one before, perhaps round the corner."""
    length = slot.shape[-1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril(-1)
    return _in_reach(slot // chunk_length, wraps) & earlier


def _in_reach(
    chunk: Int[Tensor, "rounds length"], wraps: bool
) -> Bool[Tensor, "rounds length length"]:
    """Show everybody in one's own chunk and the one before, perhaps round the corner."""
    back = chunk[:, :, None] - chunk[:, None, :]
    if wraps:
        back = back % (int(chunk.max()) + 1)
    return (back == 0) | (back == 1)


def _with_itself(
    seen: Bool[Tensor, "rounds length length"],
) -> Bool[Tensor, "rounds length length"]:
    """Show everybody itself as well."""
    return seen | torch.eye(seen.shape[-1], dtype=torch.bool)


def _counts(
    seen: Bool[Tensor, "rounds length length"], repeats: bool
) -> Int[Tensor, "length length"]:
    """Say how often a pair counts: once, or as often as rounds see it."""
    return seen.sum(0) if repeats else seen.any(0).long()


def _run(
    qk: Float[Tensor, "length d_head"],
    values: Float[Tensor, "length d_head"],
    towards: Float[Tensor, "length d_head"],
    seen: Bool[Tensor, "rounds length length"],
    bug: str,
) -> tuple[Float[Tensor, "length d_head"], Float[Tensor, "two length d_head"]]:
    """Attend over what is seen; return the output and the gradient of its product with `towards`.

    The gradient is that of qk and of the values.
    """
    counts = _counts(seen, repeats=bug == "repeats")
    with torch.enable_grad():
        qk, values = qk.clone().requires_grad_(), values.clone().requires_grad_()
        scores = qk @ keys_from(qk[None, None])[0, 0].mT + counts.to(qk.dtype).log()
        alone = (counts == 0).all(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(alone, 0), -1).masked_fill(alone, 0)
        output = weights @ values + alone * values
        gradients = torch.autograd.grad((output * towards).sum(), (qk, values))
    return output.detach(), torch.stack(gradients)


def _relative(got: Tensor, right: Tensor) -> float:
    return float((got - right).norm() / right.norm())


def _off(error: float) -> str:
    return "right" if error < _SMALL else f"off by {in_percent(error)}"


def _answer(guess: str, bug: str) -> str:
    if guess == bug:
        return f"Your guess is right: {BUGS[bug].title}, because {BUGS[bug].story}."
    return f"It is not '{BUGS[guess].title}': there {BUGS[guess].clue}."


def _check(bug: str, length: int) -> None:
    if bug != "none" and bug not in BUGS:
        raise ValueError(f"bug must be 'none' or one of {', '.join(BUGS)}, got {bug!r}")
    if not 2 <= length <= LONGEST:
        raise ValueError(
            f"qk must have from 2 to {LONGEST} tokens, got {length}: take a part, such as qk[:64]"
        )

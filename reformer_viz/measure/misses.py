"""The price of a miss: wrong answers where a copy needed a key, bits where a text did."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.bucketing import BucketPlan
from reformer_core.config import AttentionKind
from reformer_core.models import LayerTrace, ReformerLM, Trace
from reformer_core.tasks import Duplicate, Task
from reformer_viz.measure.microscope import as_tokens
from reformer_viz.measure.recall import attend_to_found, look_at_all
from reformer_viz.measure.rounds import with_attention
from reformer_viz.measure.words import count, readable

# How many tokens a model reads at once.
_TOKENS_AT_ONCE = 1 << 14
_BYTES = 256
_HALF = 0.5
# What painted tokens look like: the share of them within the scale, and its least, in bits.
_PAINTED_IN_FULL, _FAINTEST = 0.98, 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Misses:
    """Whether each answer's needed key was seen, against whether the answer was right.

    Position t of the second half must say what follows it, and that stands at `needed`: half a
    sequence back, and one on. *Seen* means by a head of a layer that hashes, in some round.
    """

    n_hashes: Int[np.ndarray, " rounds"]
    tokens: Int[np.ndarray, "sequences length"]
    sequences: Int[np.ndarray, " sequences"]
    """Which of the held-out sequences these are."""
    positions: Int[np.ndarray, " positions"]
    """Where answers are given."""
    needed: Int[np.ndarray, " positions"]
    """Where the right answer stands."""
    heads: Int[np.ndarray, "rounds sequences positions"]
    """How many heads saw the needed key. Those of all layers that hash are counted together."""
    said: Int[np.ndarray, "rounds sequences positions"]
    """The answers: the likeliest next token."""
    said_in_full: Int[np.ndarray, "sequences positions"]
    """The answers when every layer that hashes attends to all, with the same weights."""
    n_heads: int
    """How many heads there are in the layers that hash."""
    vocab_size: int
    trained_with: int
    """The number of rounds that the model itself has."""
    layer: int | None = None
    """The only layer that hashed while other LSH layers attended to all; None: all of them did."""

    @property
    def wanted(self) -> Int[np.ndarray, "sequences positions"]:
        """The right answers."""
        return self.tokens[:, self.positions + 1]

    @property
    def right(self) -> Bool[np.ndarray, "rounds sequences positions"]:
        """Which answers are right."""
        return self.said == self.wanted

    @property
    def right_in_full(self) -> Int[np.ndarray, " positions"]:
        """How many answers full attention gets right."""
        return (self.said_in_full == self.wanted).sum(0)

    @cached_property
    def by_heads(self) -> Int[np.ndarray, "rounds positions heads_that_saw wrong_or_right"]:
        """How many answers: `[r, p, h, 1]` had their key seen by h heads, and were right."""
        counts = np.zeros((len(self.n_hashes), len(self.positions), self.n_heads + 1, 2), np.int64)
        round, _, position = np.indices(self.heads.shape)
        np.add.at(counts, (round, position, self.heads, self.right.astype(int)), 1)
        return counts

    @cached_property
    def counts(self) -> Int[np.ndarray, "rounds positions missed_or_seen wrong_or_right"]:
        """How many answers: `counts[r, p, 1, 0]` had their key seen by any head, and were wrong."""
        return np.stack([self.by_heads[:, :, 0], self.by_heads[:, :, 1:].sum(2)], axis=2)

    @property
    def seen(self) -> Float[np.ndarray, " rounds"]:
        """The share of answers whose needed key was seen."""
        return self.counts[:, :, 1].sum((1, 2)) / self.n_answers

    @property
    def accuracy(self) -> Float[np.ndarray, " rounds"]:
        """The share of answers that were right."""
        return self.counts[..., 1].sum((1, 2)) / self.n_answers

    @property
    def accuracy_by_heads(self) -> Float[np.ndarray, "rounds heads_that_saw"]:
        """The accuracy of answers whose key so many heads saw; NaN where there were none."""
        wrong, right = np.moveaxis(self.by_heads.sum(1), -1, 0)
        total = wrong + right
        return np.divide(right, total, out=np.full(total.shape, np.nan), where=total > 0)

    @property
    def accuracy_in_full(self) -> float:
        """The share of answers that full attention gets right."""
        return int(self.right_in_full.sum()) / self.n_answers

    @property
    def chance(self) -> float:
        """The accuracy of guessing any symbol but the separator."""
        return 1 / (self.vocab_size - 1)

    @property
    def n_answers(self) -> int:
        """How many answers were given with each number of rounds."""
        return self.n_sequences * len(self.positions)

    @property
    def n_sequences(self) -> int:
        """How many sequences were read."""
        return len(self.sequences)

    def of(self, sequence: int) -> "Misses":
        """Return the same of one sequence alone."""
        if not 0 <= sequence < self.n_sequences:
            raise ValueError(
                f"sequence must be in 0..{self.n_sequences - 1}, got {sequence}: so many were read"
            )
        one = slice(sequence, sequence + 1)
        return replace(
            self,
            **{name: getattr(self, name)[one] for name in ("tokens", "sequences", "said_in_full")},
            **{name: getattr(self, name)[:, one] for name in ("heads", "said")},
        )

    def place_of(self, n_hashes: int | None) -> int:
        """Return where a number of rounds stands in the arrays; None is the model's own."""
        return _place_of(n_hashes, self.n_hashes, self.trained_with)

    def describe(self, n_hashes: int | None = None) -> str:
        """Say what seen and missed keys led to (None: with the model's own number of rounds)."""
        place = self.place_of(n_hashes)
        (lost, lucky), (failed, right) = self.counts[place].sum(0)
        others = (
            f"Of the other {lost + lucky:,}, {_share(lucky, lucky + lost)} are "
            f"(guessing: {self.chance:.1%})."
            if lost + lucky
            else "There are no others."
        )
        return (
            f"{self._answers()} with {count(place + 1, 'round')}{_where(self.layer)}: a head saw "
            f"the needed key of {self.seen[place]:.1%} of the answers, and "
            f"{_share(right, right + failed)} of these are right. {others} "
            f"Right of all: {self.accuracy[place]:.1%}. Full "
            f"attention with the same weights: {self.accuracy_in_full:.1%}."
        )

    def describe_answer(self, position: int, n_hashes: int | None = None) -> str:
        """Say of one position of one sequence what it needed, who saw that, and what it said."""
        place, at = self.place_of(n_hashes), position - int(self.positions[0])
        if not 0 <= at < len(self.positions) or self.n_sequences != 1:
            raise ValueError(
                f"position must be in {self.positions[0]}..{self.positions[-1]} of one sequence, "
                f"got {position} of {count(self.n_sequences, 'sequence')}: take one with of()"
            )
        wanted, said = self.wanted[0, at], self.said[place, 0, at]
        verdict = "right" if said == wanted else f"wrong, it is {wanted}"
        return (
            f"Position {position:,} needs token {self.needed[at]:,}: "
            f"{self.heads[place, 0, at]} of {count(self.n_heads, 'head')} saw it. "
            f"It said {said}: {verdict}."
        )

    def _answers(self) -> str:
        """Name the answers."""
        if self.n_sequences == 1:
            return f"Sequence {self.sequences[0]:,}, {count(len(self.positions), 'answer')},"
        return f"{self.n_sequences:,} sequences, {len(self.positions):,} answers each,"


@dataclass(frozen=True, kw_only=True, eq=False)
class MissCost:
    """What missed keys cost every token of a text: loss under LSH minus loss under full attention.

    Both with the same weights. Losses are in bits, for every token but the first, which nothing
    predicts. A negative cost is a prediction that gets better without the missed keys.
    """

    n_hashes: Int[np.ndarray, " rounds"]
    loss_in_full: Float[np.ndarray, " predicted"]
    loss: Float[np.ndarray, "rounds predicted"]
    mass_missed: Float[np.ndarray, "rounds predicted"]
    """The share of full attention's weight that no round showed the predicting position: the mean
    over the heads of all LSH layers, in the pass under LSH."""
    labels: tuple[str, ...]
    """What to call the tokens, the first included."""
    trained_with: int
    layer: int | None = None
    """The only layer that hashed while other LSH layers attended to all; None: all of them did."""

    @property
    def cost(self) -> Float[np.ndarray, "rounds predicted"]:
        """The bits that missed keys cost each token."""
        return self.loss - self.loss_in_full

    @property
    def length(self) -> int:
        """How many tokens there are, the first included."""
        return len(self.labels)

    @property
    def scale(self) -> float:
        """The cost that is painted in full colour: only one token in fifty costs or gains more."""
        return max(_FAINTEST, float(np.quantile(np.abs(self.cost), _PAINTED_IN_FULL)))

    def place_of(self, n_hashes: int | None) -> int:
        """Return where a number of rounds stands in the arrays; None is the model's own."""
        return _place_of(n_hashes, self.n_hashes, self.trained_with)

    def describe(self, n_hashes: int | None = None) -> str:
        """Say what misses cost on average, where they cost most, and who missed much."""
        place = self.place_of(n_hashes)
        cost, much = self.cost[place], self.mass_missed[place] >= _HALF
        worst = int(cost.argmax())
        return (
            f"{self.length:,} tokens. Full attention needs {self.loss_in_full.mean():.2f} bits a "
            f"token; hashing with {count(place + 1, 'round')}{_where(self.layer)} and the same "
            f"weights costs {cost.mean():+.2f} bits. {count(int(much.sum()), 'prediction')} missed "
            f"at least half of full attention's weight{_each(cost[much])}; "
            f"{int((~much).sum()):,} missed less{_each(cost[~much])}. The dearest token is "
            f"{worst + 1:,}, “{readable(self.labels[worst + 1])}”: {cost[worst]:+.2f} bits."
        )

    def describe_token(self, token: int, n_hashes: int | None = None) -> str:
        """Say what one token cost, and how much its prediction missed."""
        if not 0 <= token < self.length:
            raise ValueError(f"token must be in 0..{self.length - 1}, got {token}")
        name = f"Token {token:,}, “{readable(self.labels[token])}”: "
        if token == 0:
            return f"{name}the first, which nothing predicts."
        place, at = self.place_of(n_hashes), token - 1
        return (
            f"{name}{self.cost[place, at]:+.2f} bits (full attention {self.loss_in_full[at]:.2f}, "
            f"LSH {self.loss[place, at]:.2f}). Its prediction missed "
            f"{self.mass_missed[place, at]:.0%} of the weight."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MissReading:
    """Answers or costs with one number of rounds; refuses one that was not measured."""

    of: Misses | MissCost
    n_hashes: int

    def __post_init__(self):
        self.of.place_of(self.n_hashes)

    def describe(self) -> str:
        """Say what seen and missed keys led to."""
        return self.of.describe(self.n_hashes)


@torch.no_grad()
def measure_misses(
    model: ReformerLM,
    task: Task,
    *,
    max_hashes: int | None = None,
    n_sequences: int | None = None,
    layer: int | None = None,
) -> Misses:
    """Let a model copy held-out sequences with 1, 2, ... rounds; see which keys it had seen.

    `max_hashes=None` stops at the model's own number of rounds; n rounds are the first n of those,
    and more are drawn anew. `n_sequences=None` takes all that are held out. With `layer` only that
    layer hashes, and other LSH layers attend to all: the misses are its own. Works on copies in
    evaluation mode: the model is only read.

    Raises ValueError for another task, for a model without LSH layers or a layer that is none, and
    for activations that are not finite.
    """
    if not isinstance(task, Duplicate):
        raise ValueError(
            f"task must be Duplicate, where the needed key is known, got {type(task).__name__}: "
            f"for a text use measure_miss_cost"
        )
    rounds, kinds = _rounds_of(model, max_hashes), _kinds(model, layer)
    tokens = torch.cat([batch.tokens for batch in task.held_out(64)])[:n_sequences]
    if not len(tokens):
        raise ValueError(f"n_sequences must be at least 1, got {n_sequences}")
    half = task.length // 2
    positions = torch.arange(half, task.length - 1)
    needed = positions - (half - 1)
    answers = [
        _answer(with_attention(model, int(n), kinds), tokens, positions, needed) for n in rounds
    ]
    heads, said = (np.stack(parts) for parts in zip(*answers, strict=True))
    full = with_attention(model, None, kinds)
    return Misses(
        n_hashes=rounds,
        tokens=tokens.numpy(),
        sequences=np.arange(len(tokens)),
        positions=positions.numpy(),
        needed=needed.numpy(),
        heads=heads,
        said=said,
        said_in_full=np.concatenate([_said(trace, positions) for _, trace in _read(full, tokens)]),
        n_heads=kinds.count("lsh") * model.config.n_heads,
        vocab_size=task.vocab_size,
        trained_with=model.config.n_hashes,
        layer=layer,
    )


@torch.no_grad()
def measure_miss_cost(
    model: ReformerLM,
    tokens: str | Sequence[int] | np.ndarray | Tensor,
    *,
    max_hashes: int | None = None,
    labels: Sequence[str] | None = None,
    layer: int | None = None,
) -> MissCost:
    """Measure every token's loss with 1, 2, ... rounds, and with full attention in their place.

    `tokens` is one sequence, or a text for a model of bytes. Rounds and `layer` are those of
    `measure_misses`. `labels` names the tokens; None reads a vocabulary of 256 as bytes. Full
    attention builds length x length.

    Raises ValueError for several sequences, less than two tokens, a model without LSH layers or a
    layer that is none, and for activations that are not finite.
    """
    tokens = as_tokens(tokens, model.config.vocab_size)[None]
    if labels is not None and len(labels) != tokens.shape[1]:
        raise ValueError(
            f"labels must name every token, got {len(labels)} for {tokens.shape[1]} tokens"
        )
    rounds, kinds = _rounds_of(model, max_hashes), _kinds(model, layer)
    ((_, full),) = _read(with_attention(model, None, kinds), tokens)
    hashing = (with_attention(model, int(n), kinds) for n in rounds)
    traces = [trace for with_rounds in hashing for _, trace in _read(with_rounds, tokens)]
    if labels is None:  # the model has read the tokens: all of them have a name
        labels = [_name(token, model.config.vocab_size) for token in tokens[0].tolist()]
    return MissCost(
        n_hashes=rounds,
        loss_in_full=_bits(full, tokens),
        loss=np.array([_bits(trace, tokens) for trace in traces]),
        mass_missed=np.array([_mass_missed(trace) for trace in traces]),
        labels=tuple(labels),
        trained_with=model.config.n_hashes,
        layer=layer,
    )


def _rounds_of(model: ReformerLM, max_hashes: int | None) -> Int[np.ndarray, " rounds"]:
    """Return the numbers of rounds to measure."""
    max_hashes = model.config.n_hashes if max_hashes is None else max_hashes
    if max_hashes < 1:
        raise ValueError(f"max_hashes must be at least 1, got {max_hashes}")
    return np.arange(1, max_hashes + 1)


def _kinds(model: ReformerLM, layer: int | None) -> tuple[AttentionKind, ...]:
    """Return every layer's attention when all LSH layers hash, or one of them alone."""
    kinds = [model.config.attention_of(at) for at in range(model.config.n_layers)]
    lsh = [at for at, kind in enumerate(kinds) if kind == "lsh"]
    if not lsh:
        raise ValueError(f"the model must have an LSH layer to miss keys, got layers {kinds}")
    if layer is not None and layer not in lsh:
        raise ValueError(f"layer must be one of {lsh}, which have LSH attention, got {layer}")
    return tuple(
        "full" if at in lsh and layer not in (None, at) else kind for at, kind in enumerate(kinds)
    )


def _read(model: ReformerLM, tokens: Tensor) -> Iterator[tuple[Tensor, Trace]]:
    """Let a model read sequences, as many at once as there is room for."""
    for batch in tokens.split(max(1, _TOKENS_AT_ONCE // tokens.shape[1])):
        batch = batch.to(model.head.weight.device)
        trace = model.trace(batch)
        if not trace.logits.isfinite().all():
            model(batch)  # says which layer it is, if it is one
            raise ValueError(
                "logits must be finite, got NaN or infinity: look at the weights of the head"
            )
        yield batch, trace


def _answer(
    model: ReformerLM,
    tokens: Int[Tensor, "sequences length"],
    positions: Int[Tensor, " positions"],
    needed: Int[Tensor, " positions"],
) -> tuple[Int[np.ndarray, "sequences positions"], Int[np.ndarray, "sequences positions"]]:
    """Return how many heads saw each answer's key, and the answers."""
    heads, said = [], []
    for _, trace in _read(model, tokens):
        plans = [layer.plan for layer in trace.layers if layer.plan is not None]
        heads.append(sum(_heads_that_see(plan, positions, needed) for plan in plans).cpu().numpy())
        said.append(_said(trace, positions))
    return np.concatenate(heads), np.concatenate(said)


def _said(trace: Trace, positions: Int[Tensor, " positions"]) -> Int[np.ndarray, "batch positions"]:
    """Return the likeliest next token at some positions."""
    return trace.logits[:, positions].argmax(-1).cpu().numpy()


def _heads_that_see(
    plan: BucketPlan, queries: Int[Tensor, " positions"], keys: Int[Tensor, " positions"]
) -> Int[Tensor, "batch positions"]:
    """Count the heads that see, in any round, the key that belongs to each query."""
    slot, of_key = plan.slot[..., queries], plan.slot[..., keys]
    seen = (plan.first.gather(-1, slot) <= of_key) & (of_key <= plan.last.gather(-1, slot))
    return seen.any(dim=2).sum(dim=1)


def _bits(trace: Trace, tokens: Int[Tensor, "1 length"]) -> Float[np.ndarray, " predicted"]:
    """Return the loss of every token but the first, in bits."""
    nats = torch.nn.functional.cross_entropy(
        trace.logits[0, :-1].double(),
        tokens[0, 1:].to(trace.logits.device).long(),
        reduction="none",
    )
    return (nats / math.log(2)).cpu().numpy()


def _mass_missed(trace: Trace) -> Float[np.ndarray, " predicted"]:
    """Return the share of full attention's weight that each predicting position did not see."""
    hashed = [layer for layer in trace.layers if layer.plan is not None]
    found = torch.cat([_mass_found(layer) for layer in hashed], dim=1)[0].mean(0)
    if hashed[0].plan.causal:
        found[0] = 1  # the first position has nobody to miss
    return 1 - found[:-1].double().cpu().numpy()


def _mass_found(layer: LayerTrace) -> Float[Tensor, "batch heads length"]:
    """Return the share of full attention's weight that every query of a layer sees."""
    full = look_at_all(layer.qk, top_k=1, causal=layer.plan.causal)
    mass, _ = attend_to_found(full, layer.plan)
    return mass


def _place_of(n_hashes: int | None, measured: Int[np.ndarray, " rounds"], trained_with: int) -> int:
    """Find a number of rounds among 1, 2, 3, ..."""
    n_hashes = min(trained_with, len(measured)) if n_hashes is None else n_hashes
    if not 1 <= n_hashes <= len(measured):
        raise ValueError(
            f"n_hashes must be in 1..{len(measured)}, got {n_hashes}: as many rounds were measured"
        )
    return n_hashes - 1


def _name(token: int, vocab_size: int) -> str:
    """Name a token: as a character where tokens are bytes, else by its number."""
    if vocab_size != _BYTES:
        return str(token)
    character = chr(token)
    return (
        character
        if character.isascii() and (character.isprintable() or token == 10)
        else (f"\\x{token:02x}")
    )


def _where(layer: int | None) -> str:
    return "" if layer is None else f" in layer {layer} alone"


def _share(part: int | np.integer, whole: int | np.integer) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _each(costs: Float[np.ndarray, " some"]) -> str:
    return f": {costs.mean():+.2f} bits each" if len(costs) else ""

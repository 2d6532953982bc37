"""The price of a miss: wrong answers where a copy needed a key, bits where a text did."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.bucketing import BucketPlan
from reformer_core.models import LayerTrace, ReformerLM, Trace
from reformer_core.tasks import Duplicate, Task
from reformer_viz.measure.recall import attend_to_found, look_at_all
from reformer_viz.measure.rounds import hashing_layers, with_attention
from reformer_viz.measure.words import count

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
    sequence back, and one on. *Seen* means by a head of an LSH layer in some round.
    """

    n_hashes: Int[np.ndarray, " rounds"]
    positions: Int[np.ndarray, " positions"]
    """Where answers are given."""
    needed: Int[np.ndarray, " positions"]
    """Where the right answer stands."""
    by_heads: Int[np.ndarray, "rounds positions heads_that_saw wrong_or_right"]
    """How many answers: `by_heads[r, p, h, 1]` had their key seen by h heads, and were right. The
    heads of all LSH layers are counted together."""
    right_in_full: Int[np.ndarray, " positions"]
    """How many answers are right when every LSH layer attends to all, with the same weights."""
    n_sequences: int
    vocab_size: int
    trained_with: int
    """The number of rounds that the model itself has."""

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
            f"{self.n_sequences:,} sequences, {len(self.positions):,} answers each, with "
            f"{count(place + 1, 'round')}: a head saw the needed key of {self.seen[place]:.1%} of "
            f"the answers, and {_share(right, right + failed)} of these are right. {others} "
            f"Right of all: {self.accuracy[place]:.1%}. Full "
            f"attention with the same weights: {self.accuracy_in_full:.1%}."
        )


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
            f"token; hashing with {count(place + 1, 'round')} and the same weights costs "
            f"{cost.mean():+.2f}. {int(much.sum()):,} predictions missed at least half of full "
            f"attention's weight: {_mean(cost[much])} each; the others: {_mean(cost[~much])}. The "
            f"dearest token is {worst + 1:,}, “{self.labels[worst + 1]}”: {cost[worst]:+.2f}."
        )

    def describe_token(self, token: int, n_hashes: int | None = None) -> str:
        """Say what one token cost, and how much its prediction missed."""
        if not 0 <= token < self.length:
            raise ValueError(f"token must be in 0..{self.length - 1}, got {token}")
        name = f"Token {token:,}, “{self.labels[token]}”: "
        if token == 0:
            return f"{name}the first, which nothing predicts."
        place, at = self.place_of(n_hashes), token - 1
        return (
            f"{name}{self.cost[place, at]:+.2f} bits (full attention {self.loss_in_full[at]:.2f}, "
            f"LSH {self.loss[place, at]:.2f}). Its prediction missed "
            f"{self.mass_missed[place, at]:.0%} of the weight."
        )


@torch.no_grad()
def measure_misses(
    model: ReformerLM,
    task: Task,
    *,
    max_hashes: int | None = None,
    n_sequences: int | None = None,
) -> Misses:
    """Let a model copy held-out sequences with 1, 2, ... rounds; see which keys it had seen.

    `max_hashes=None` stops at the model's own number of rounds; n rounds are the first n of those,
    and more are drawn anew. `n_sequences=None` takes all that are held out. Works on a copy in
    evaluation mode: the model is only read.

    Raises ValueError for another task, and for a model without LSH layers.
    """
    if not isinstance(task, Duplicate):
        raise ValueError(
            f"task must be Duplicate, where the needed key is known, got {type(task).__name__}: "
            f"for a text use measure_miss_cost"
        )
    rounds = _rounds_of(model, max_hashes)
    tokens = torch.cat([batch.tokens for batch in task.held_out(64)])[:n_sequences]
    if not len(tokens):
        raise ValueError(f"n_sequences must be at least 1, got {n_sequences}")
    half = task.length // 2
    positions = torch.arange(half, task.length - 1)
    needed = positions - (half - 1)
    by_heads = np.stack(
        [_count_answers(with_attention(model, int(n)), tokens, positions, needed) for n in rounds]
    )
    full = with_attention(model, None)
    return Misses(
        n_hashes=rounds,
        positions=positions.numpy(),
        needed=needed.numpy(),
        by_heads=by_heads,
        right_in_full=sum(
            _right(trace, batch, positions).sum(0).cpu().numpy()
            for batch, trace in _read(full, tokens)
        ),
        n_sequences=len(tokens),
        vocab_size=task.vocab_size,
        trained_with=model.config.n_hashes,
    )


@torch.no_grad()
def measure_miss_cost(
    model: ReformerLM,
    tokens: Int[Tensor, "*batch length"],
    *,
    max_hashes: int | None = None,
    labels: Sequence[str] | None = None,
) -> MissCost:
    """Measure every token's loss with 1, 2, ... rounds, and with full attention in their place.

    `tokens` is one sequence. Rounds are those of `measure_misses`. `labels` names the tokens; None
    reads a vocabulary of 256 as bytes. Full attention builds length x length.

    Raises ValueError for several sequences, less than two tokens, or a model without LSH layers.
    """
    tokens = tokens if tokens.dim() == 2 else tokens[None]
    if tokens.shape[0] != 1 or tokens.shape[1] < 2:
        raise ValueError(
            f"tokens must be one sequence of at least 2 tokens, got {tuple(tokens.shape)}"
        )
    if labels is None:
        labels = [_name(token, model.config.vocab_size) for token in tokens[0].tolist()]
    if len(labels) != tokens.shape[1]:
        raise ValueError(
            f"labels must name every token, got {len(labels)} for {tokens.shape[1]} tokens"
        )
    rounds = _rounds_of(model, max_hashes)
    ((_, full),) = _read(with_attention(model, None), tokens)
    traces = [trace for n in rounds for _, trace in _read(with_attention(model, int(n)), tokens)]
    return MissCost(
        n_hashes=rounds,
        loss_in_full=_bits(full, tokens),
        loss=np.array([_bits(trace, tokens) for trace in traces]),
        mass_missed=np.array([_mass_missed(trace) for trace in traces]),
        labels=tuple(labels),
        trained_with=model.config.n_hashes,
    )


def _rounds_of(model: ReformerLM, max_hashes: int | None) -> Int[np.ndarray, " rounds"]:
    """Return the numbers of rounds to measure; refuse a model that does not hash."""
    config = model.config
    kinds = [config.attention_of(layer) for layer in range(config.n_layers)]
    if "lsh" not in kinds:
        raise ValueError(f"the model must have an LSH layer to miss keys, got layers {kinds}")
    max_hashes = config.n_hashes if max_hashes is None else max_hashes
    if max_hashes < 1:
        raise ValueError(f"max_hashes must be at least 1, got {max_hashes}")
    return np.arange(1, max_hashes + 1)


def _read(model: ReformerLM, tokens: Tensor) -> Iterator[tuple[Tensor, Trace]]:
    """Let a model read sequences, as many at once as there is room for."""
    for batch in tokens.split(max(1, _TOKENS_AT_ONCE // tokens.shape[1])):
        batch = batch.to(model.head.weight.device)
        yield batch, model.trace(batch)


def _count_answers(
    model: ReformerLM,
    tokens: Int[Tensor, "sequences length"],
    positions: Int[Tensor, " positions"],
    needed: Int[Tensor, " positions"],
) -> Int[np.ndarray, "positions heads_that_saw 2"]:
    """Count answers by how many heads saw their key, and whether they are right."""
    n_heads = model.config.n_heads * len(list(hashing_layers(model)))
    counts = np.zeros((len(positions), n_heads + 1, 2), dtype=np.int64)
    for batch, trace in _read(model, tokens):
        plans = [layer.plan for layer in trace.layers if layer.plan is not None]
        heads = sum(_heads_that_see(plan, positions, needed) for plan in plans)
        right = _right(trace, batch, positions)
        place = torch.arange(len(positions), device=heads.device).expand(heads.shape)
        np.add.at(counts, tuple(part.cpu().numpy() for part in (place, heads, right.long())), 1)
    return counts


def _right(
    trace: Trace, tokens: Int[Tensor, "batch length"], positions: Int[Tensor, " positions"]
) -> Bool[Tensor, "batch positions"]:
    """Say whether the likeliest next token is the right one."""
    return trace.logits[:, positions].argmax(-1) == tokens[:, positions + 1]


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


def _share(part: int | np.integer, whole: int | np.integer) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _mean(costs: Float[np.ndarray, " some"]) -> str:
    return f"{costs.mean():+.2f}" if len(costs) else "nothing"

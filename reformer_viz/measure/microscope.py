"""One head of a trained model under the microscope: every token's mates, seen, lost and found."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8, UInt8
from torch import Tensor

from reformer_core.attention.dense import keys_from
from reformer_core.attention.operation import fused_log_totals
from reformer_core.attention.rule import Rule
from reformer_core.bucketing import BucketPlan, Window, plan_chunks
from reformer_core.layers import LSHSelfAttention
from reformer_core.models import LayerTrace, ReformerLM
from reformer_viz.measure.bucketing import (
    ELSEWHERE,
    FOUND,
    HIDDEN,
    LOST,
    SEEN,
    name_in_words,
    padding_in_words,
    pairs_among,
    pairs_seen,
    token_in_words,
)
from reformer_viz.measure.pairs import plan_under, rule_of
from reformer_viz.measure.sequence import tensor_of
from reformer_viz.measure.words import count, readable

N_BYTES = 256
HALF_PERCENTS = 200
"""A weight of 1 in half percents: what a page is told of a weight, in one byte."""

_PAIRS_AT_ONCE = 1 << 17
_HEAVIEST_IN_A_SENTENCE = 3
_NO_WEIGHTS = "The model did otherwise, so nothing is said about weights."


@dataclass(frozen=True, eq=False)
class Weights:
    """What attention gives every pair that some round sees: one softmax over all rounds' keys.

    Query i has the pairs from `starts[i]` up to `starts[i + 1]`, by the position of their keys. A
    query that sees nobody in any round has none, and attends to itself.
    """

    starts: Int[np.ndarray, " length_and_one"]
    keys: Int[np.ndarray, " pairs"]
    shares: Float[np.ndarray, " pairs"]

    @cached_property
    def half_percents(self) -> UInt8[np.ndarray, " pairs"]:
        """The shares as whole numbers of half percents."""
        return np.rint(self.shares * HALF_PERCENTS).astype(np.uint8)

    def of(
        self, token: int | np.integer
    ) -> tuple[Int[np.ndarray, " keys"], Float[np.ndarray, " keys"]]:
        """Return the keys of a query, and what it gives each."""
        pairs = self._pairs(token)
        return self.keys[pairs], self.shares[pairs]

    def heaviest(self, token: int | np.integer, most: int) -> list[tuple[int, int]]:
        """List a query's heaviest keys with their half percents, at most so many, none of 0."""
        pairs = self._pairs(token)
        keys, halves = self.keys[pairs], self.half_percents[pairs]
        order = np.argsort(-halves.astype(int), kind="stable")[:most]
        return [(int(keys[i]), int(halves[i])) for i in order if halves[i]]

    def _pairs(self, token: int | np.integer) -> slice:
        return slice(int(self.starts[token]), int(self.starts[token + 1]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Microscope:
    """What one head of one layer did with a sequence; or, after `under`, what it would have done.

    Everything about one token is found from the runs of its slots, in time that grows with the
    length: nothing here is length x length.
    """

    buckets: Int[np.ndarray, "rounds length"]
    order: Int[np.ndarray, "rounds length"]
    slot: Int[np.ndarray, "rounds length"]
    first: Int[np.ndarray, "rounds length"]
    last: Int[np.ndarray, "rounds length"]
    n_buckets: int
    chunk_length: int
    chunks_before: int
    chunks_after: int
    window: Window
    within_bucket: bool
    causal: bool
    labels: tuple[str, ...]
    """What to call the tokens."""
    layer: int
    head: int
    n_heads: int
    layers: tuple[str, ...]
    """The attention of every layer of the model."""
    qk: Float[np.ndarray, "length d_head"] | None
    """The head's query-keys, or None where the plan is not the model's own."""
    count_repeats: bool
    padding: Bool[np.ndarray, " length"] | None = None
    """Which tokens are padding, if any: they see nobody, and nobody sees them."""

    @property
    def n_rounds(self) -> int:
        """How many rounds are looked at."""
        return self.buckets.shape[0]

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return self.buckets.shape[1]

    @property
    def real(self) -> Bool[np.ndarray, " length"]:
        """Which tokens are not padding."""
        return np.ones(self.length, bool) if self.padding is None else ~self.padding

    @cached_property
    def weights(self) -> Weights | None:
        """What the head gave every pair, or None where the plan is not the model's own.

        This takes a while at great lengths, and is done when it is first asked for.
        """
        return None if self.qk is None else _weigh(self)

    def weights_of(
        self, token: int
    ) -> tuple[Int[np.ndarray, " keys"], Float[np.ndarray, " keys"]] | None:
        """Return what the head gave the keys of one token: its part of `weights`, at once."""
        if self.qk is None:
            return None
        times = self.seen_by(token).sum(0)
        keys = np.flatnonzero(times)
        qk = torch.from_numpy(self.qk)[None, None]
        scores = (keys_from(qk)[0, 0] @ qk[0, 0, token])[keys].double()
        counted = torch.from_numpy(times[keys]) if self.count_repeats else torch.ones(len(keys))
        return keys, (scores + counted.double().log()).softmax(0).numpy()

    def under(
        self,
        *,
        rounds: int | None = None,
        chunk_length: int | None = None,
        window: Window | None = None,
        within_bucket: bool | None = None,
    ) -> "Microscope":
        """Plan the same buckets by another rule, or only the first rounds; None leaves it as it is.

        What differs from what the model did has no weights.
        """
        rule = {"chunk_length": chunk_length, "window": window, "within_bucket": within_bucket}
        plan = plan_under(self, rounds=rounds, **rule)
        if plan is None:
            return self
        return replace(self, **_arrays(plan), **rule_of(plan), qk=None)

    def check_round(self, round: int) -> None:
        """Refuse a round that is not there."""
        if not 0 <= round < self.n_rounds:
            raise ValueError(
                f"round must be in 0..{self.n_rounds - 1}, got {round}: there are {self.n_rounds}"
            )

    def check_token(self, token: int) -> None:
        """Refuse a token that is not in the sequence."""
        if not 0 <= token < self.length:
            raise ValueError(
                f"token must be in 0..{self.length - 1}, got {token}: "
                f"the sequence has {self.length} tokens"
            )

    def seen_by(self, token: int) -> Bool[np.ndarray, "rounds length"]:
        """Say for every round and key whether the token may see the key."""
        self.check_token(token)
        seen = np.zeros(self.buckets.shape, dtype=bool)
        for round, slot in enumerate(self.slot[:, token]):
            run = slice(self.first[round, slot], self.last[round, slot] + 1)
            seen[round, self.order[round, run]] = True
        return seen & self._allowed(token)

    def kinds(self, round: int, token: int) -> Int8[np.ndarray, " length"]:
        """Say of every key what a round makes of it for one query.

        The codes are HIDDEN, SEEN, LOST, ELSEWHERE and FOUND of `measure.bucketing`.
        """
        self.check_round(round)
        seen = self.seen_by(token)
        mates = (self.buckets[round] == self.buckets[round, token]) & self._allowed(token)
        unseen = np.where(
            seen.any(axis=0), np.where(mates, FOUND, ELSEWHERE), np.where(mates, LOST, HIDDEN)
        )
        return np.where(seen[round], SEEN, unseen).astype(np.int8)

    def kinds_among(
        self, round: int, tokens: Int[np.ndarray, " tokens"]
    ) -> Int8[np.ndarray, "tokens tokens"]:
        """Say of some tokens what a round makes of every pair of them, queries in rows."""
        return np.stack([self.kinds(round, int(token))[tokens] for token in tokens])

    def seen_binned(self, bins: int, round: int | None = None) -> Int[np.ndarray, "bins bins"]:
        """Count the pairs that a round, or without one any round, sees: queries in rows.

        Neighbouring positions share a bin, so that any length fits a picture.
        """
        chosen = range(self.n_rounds) if round is None else [round]
        counts = np.zeros((bins, bins), dtype=np.int64)
        for r in chosen:
            self.check_round(r)
            pairs = pairs_seen(self.order[r], self.first[r], self.last[r], self.causal)
            query, key = (np.stack(pairs) * bins) // self.length
            counts += np.bincount(query * bins + key, minlength=bins * bins).reshape(bins, bins)
        return counts

    def describe(self, round: int = 0, token: int | None = None, weighed: bool = True) -> str:
        """Say in a few sentences what a round did, or what it did with one token.

        Without `weighed` nothing is said about weights, which take longer.
        """
        self.check_round(round)
        if token is None:
            words = f"{self._overall()} {self._of_round(round)}"
        else:
            self.check_token(token)
            words = self._of_token(round, token)
        if self.qk is None:
            return f"{words} {_NO_WEIGHTS}"
        silent = token is None or not self.real[token] or not weighed
        return words if silent else f"{words} {self._heaviest(token)}"

    def _allowed(self, token: int) -> Bool[np.ndarray, " length"]:
        position, real = np.arange(self.length), self.real
        before = position < token if self.causal else position != token
        return before & real & real[token]

    def _overall(self) -> str:
        reach = self.chunk_length * (self.chunks_before + self.chunks_after)
        window = (
            f"chunks of {self.chunk_length:,}"
            if self.window == "chunks"
            else f"a sliding window of {count(reach, 'slot')}"
        )
        padded = int((~self.real).sum())
        padding = f" ({padded:,} of them padding)" if padded else ""
        return (
            f"Layer {self.layer}, head {self.head}: {count(self.length, 'token')}{padding}, "
            f"{count(self.n_buckets, 'bucket')}, {count(self.n_rounds, 'round')}, {window}."
        )

    def _of_round(self, round: int) -> str:
        runs = self.order[round], self.first[round], self.last[round]
        query, key = pairs_seen(*runs, self.causal)
        seen = int((self.buckets[round, query] == self.buckets[round, key]).sum())
        sizes = np.bincount(self.buckets[round, self.real], minlength=self.n_buckets)
        mates = int(pairs_among(sizes, self.causal).sum())
        across = "" if self.within_bucket else f" It sees {len(query) - seen:,} across buckets."
        return (
            f"Round {round}: buckets hold {sizes.min():,} to {count(int(sizes.max()), 'token')}. "
            f"Of {count(mates, 'pair')} in one bucket, the round sees {seen:,} and loses "
            f"{mates - seen:,} to the window.{across}"
        )

    def _of_token(self, round: int, token: int) -> str:
        if not self.real[token]:
            return padding_in_words(self.labels, token)
        return token_in_words(self, self.kinds(round, token), round, token)

    def _heaviest(self, token: int) -> str:
        if self.weights.starts[token] == self.weights.starts[token + 1]:
            return "No round shows it anybody, so it attends to itself."
        heaviest = self.weights.heaviest(token, _HEAVIEST_IN_A_SENTENCE)
        named = (
            f"token {key:,}{name_in_words(self.labels, key)} {halves / 2:.1f} %"
            for key, halves in heaviest
        )
        return f"It gives most weight to {', '.join(named) or 'none in particular'}."


@dataclass(frozen=True, kw_only=True, eq=False)
class Specimen:
    """What the layers of a model make of one sequence: ready to be looked at, head by head.

    The model has run as far as has been looked at, which is what takes long.
    """

    passing: Iterator[LayerTrace]
    layers: tuple[str, ...]
    count_repeats: bool
    labels: tuple[str, ...]
    _passed: list[tuple[LayerTrace, bool]] = field(default_factory=list)
    """The layers until now, and whether they are finite."""

    def look(self, layer: int | None = None, head: int = 0) -> Microscope:
        """Take one head of one layer, None being the first with LSH attention."""
        layer = self._lsh_layer(layer)
        seen = self._trace_of(layer)
        n_heads = seen.qk.shape[1]
        if not 0 <= head < n_heads:
            raise ValueError(
                f"head must be in 0..{n_heads - 1}, got {head}: the layer has {n_heads}"
            )
        of_head = seen.plan.buckets[:1, head : head + 1].cpu()
        padding = None if seen.plan.padding is None else seen.plan.padding[:1].cpu()
        return Microscope(
            **_arrays(plan_chunks(of_head, **rule_of(seen.plan), padding=padding)),
            **rule_of(seen.plan),
            labels=self.labels,
            layer=layer,
            head=head,
            n_heads=n_heads,
            layers=self.layers,
            qk=seen.qk[0, head].float().cpu().numpy(),
            count_repeats=self.count_repeats,
            padding=None if padding is None else padding[0].numpy(),
        )

    def _trace_of(self, layer: int) -> LayerTrace:
        """Run the model up to a layer; refuse what is not finite until there."""
        while len(self._passed) <= layer:
            seen = next(self.passing)
            self._passed.append((seen, _is_finite(seen)))
        for at, (_, finite) in enumerate(self._passed[: layer + 1]):
            if not finite:
                raise ValueError(
                    f"activations must be finite, got NaN or infinity in layer {at}'s attention: "
                    f"look at its weights and at those before it"
                )
        return self._passed[layer][0]

    def _lsh_layer(self, layer: int | None) -> int:
        """Return a layer that has buckets, or say which ones do."""
        lsh = [i for i, kind in enumerate(self.layers) if kind == "lsh"]
        if not lsh:
            raise ValueError(
                f"a model without LSH layers has no buckets to look at, got layers "
                f'{self.layers}: build one with attention=("local", "lsh")'
            )
        if layer is None:
            return lsh[0]
        if not 0 <= layer < len(self.layers):
            raise ValueError(
                f"layer must be in 0..{len(self.layers) - 1}, got {layer}: "
                f"the model has {len(self.layers)}"
            )
        if layer not in lsh:
            raise ValueError(
                f"layer must be one with LSH attention, got {layer}, whose attention is "
                f"{self.layers[layer]}: of this model take one of {lsh}"
            )
        return layer


def measure_microscope(
    model: ReformerLM,
    tokens: str | Sequence[int] | np.ndarray | Tensor,
    layer: int | None = None,
    head: int = 0,
    *,
    padding: Sequence | np.ndarray | Tensor | None = None,
    decode: Callable[[list[int]], str] | None = None,
) -> Microscope:
    """Run a copy of a model on one sequence, and take what one head of one layer did with it.

    `tokens` are numbers, or text for a model of bytes. `layer=None` is the first with LSH
    attention. `decode` turns a list of one token into what to call it; without it a byte is called
    by its character, and any other token by its number. `padding` is True where a token is padding:
    such a one sees nobody, and nobody sees it. The copy evaluates: no
    dropout, and the rotations that stay the same. The model itself is left as it is.

    Raises ValueError for what cannot be looked at: fewer than two tokens, tokens that the model
    does not know, a layer without buckets, activations that are not finite.
    """
    return take_specimen(copy_of(model), tokens, padding=padding, decode=decode).look(layer, head)


def copy_of(model: ReformerLM, rotations: int = 0) -> ReformerLM:
    """Copy a model for looking: nothing that happens to either one reaches the other.

    `rotations=0` hashes with the directions of evaluation, and n > 0 with those that training drew
    for its n-th step, the first being 1.
    """
    if rotations < 0:
        raise ValueError(f"rotations must not be negative, got {rotations}: 0 are evaluation's")
    looked_at = copy.deepcopy(model).eval().requires_grad_(False)
    for module in looked_at.modules() if rotations else ():
        if isinstance(module, LSHSelfAttention):
            module.evaluation_rotations = module.rotations(rotations)
    return looked_at


def take_specimen(
    model: ReformerLM,
    tokens: str | Sequence[int] | np.ndarray | Tensor,
    *,
    padding: Sequence | np.ndarray | Tensor | None = None,
    decode: Callable[[list[int]], str] | None = None,
) -> Specimen:
    """Run an evaluating model on one sequence, as far as will be looked at."""
    config, device = model.config, next(model.parameters()).device
    numbers = as_tokens(tokens, config.vocab_size)
    padding = _as_padding(padding, len(numbers))
    return Specimen(
        passing=model.trace_layers(
            numbers[None].to(device), None if padding is None else padding[None].to(device)
        ),
        layers=tuple(config.attention_of(layer) for layer in range(config.n_layers)),
        count_repeats=config.count_repeats,
        labels=_labels(numbers.tolist(), config.vocab_size, decode),
    )


def label_bytes(numbers: list[int]) -> tuple[str, ...]:
    """Call every byte of a UTF-8 text by its character; further bytes of a character by "…".

    What is no UTF-8 is called by its two hexadecimal digits, and white space by a sign.
    """
    labels: list[str] = []
    while len(labels) < len(numbers):
        start = len(labels)
        lengths = [n for n in range(1, 5) if _is_character(numbers[start : start + n])]
        if lengths:
            labels.append(bytes(numbers[start : start + lengths[0]]).decode())
            labels += ["…"] * (lengths[0] - 1)
        else:
            labels.append(f"{numbers[start]:02X}")
    return tuple(map(readable, labels))


def _is_character(numbers: list[int]) -> bool:
    try:
        return len(bytes(numbers).decode()) == 1
    except UnicodeDecodeError:
        return False


def _labels(
    numbers: list[int], vocab_size: int, decode: Callable[[list[int]], str] | None
) -> tuple[str, ...]:
    if decode is not None:
        return tuple(readable(decode([number])) for number in numbers)
    return label_bytes(numbers) if vocab_size == N_BYTES else tuple(map(str, numbers))


def as_tokens(
    tokens: str | Sequence[int] | np.ndarray | Tensor, vocab_size: int
) -> Int[Tensor, " length"]:
    """Return one sequence of at least two tokens; whether they are known, the model will say."""
    if isinstance(tokens, str):
        if vocab_size != N_BYTES:
            raise ValueError(
                f"text needs a model of bytes, whose vocab_size is {N_BYTES}, got {vocab_size}: "
                f"give the numbers of the tokens"
            )
        tokens = list(tokens.encode())
    numbers = tensor_of("tokens", tokens).cpu()
    if numbers.dim() == 2 and len(numbers) == 1:
        numbers = numbers[0]
    if numbers.dim() != 1:
        raise ValueError(
            f"tokens must be one sequence, got the shape {tuple(numbers.shape)}: of a batch give "
            f"one row, such as tokens[0]"
        )
    if len(numbers) < 2:
        raise ValueError(
            f"a sequence needs at least 2 tokens, got {len(numbers)}: one alone has nobody to see"
        )
    if numbers.is_floating_point():
        raise ValueError(f"tokens must be integers, got {numbers.dtype}: give their numbers")
    return numbers


def _as_padding(
    padding: Sequence | np.ndarray | Tensor | None, length: int
) -> Bool[Tensor, " length"] | None:
    """Return which tokens are padding; refuse what leaves fewer than two."""
    if padding is None:
        return None
    padding = torch.as_tensor(padding).detach().cpu()
    if padding.dim() == 2 and len(padding) == 1:
        padding = padding[0]
    if padding.dtype != torch.bool or tuple(padding.shape) != (length,):
        raise ValueError(
            f"padding must be a True or False for each of {length} tokens, got {padding.dtype} of "
            f"shape {tuple(padding.shape)}"
        )
    if int((~padding).sum()) < 2:
        raise ValueError(
            f"a sequence needs at least 2 tokens that are not padding, got {int((~padding).sum())}"
        )
    return padding


def _as_batch(padding: Bool[np.ndarray, " length"] | None) -> Bool[Tensor, "1 length"] | None:
    return None if padding is None else torch.from_numpy(padding)[None]


def _is_finite(seen: LayerTrace) -> bool:
    """Say whether all numbers are, by the least and the greatest: NaN is both."""
    given = [tensor for tensor in (seen.qk, seen.values) if tensor is not None]
    return all(bool(edge.isfinite()) for tensor in given for edge in tensor.aminmax())


def _arrays(plan: BucketPlan) -> dict[str, np.ndarray]:
    """Return a plan's arrays for its only sequence and head."""
    names = "buckets", "order", "slot", "first", "last"
    return {name: getattr(plan, name)[0, 0].numpy() for name in names}


def _weigh(microscope: Microscope) -> Weights:
    """Weigh every pair that some round sees: exp(q . k - log_total), times its count."""
    rounds = zip(microscope.order, microscope.first, microscope.last, strict=True)
    every = (pairs_seen(*round, microscope.causal) for round in rounds)
    numbers = np.concatenate([query * microscope.length + key for query, key in every])
    pairs, times = np.unique(numbers, return_counts=True)
    query, key = np.divmod(pairs, microscope.length)
    qk = torch.from_numpy(microscope.qk)[None, None]
    plan = plan_chunks(
        torch.from_numpy(microscope.buckets)[None, None],
        **rule_of(microscope),
        padding=_as_batch(microscope.padding),
    )
    rule = Rule(plan=plan, count_repeats=microscope.count_repeats)
    log_total = fused_log_totals(qk, rule)[0, 0].numpy()
    scores = _scores(qk[0, 0].numpy(), keys_from(qk)[0, 0].numpy(), query, key)
    shares = np.exp(scores - log_total[query])
    return Weights(
        starts=np.searchsorted(query, np.arange(microscope.length + 1)),
        keys=key,
        shares=shares * times if microscope.count_repeats else shares,
    )


def _scores(
    queries: Float[np.ndarray, "length d_head"],
    keys: Float[np.ndarray, "length d_head"],
    query: Int[np.ndarray, " pairs"],
    key: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    """Multiply queries and keys, some pairs at a time: side by side they would be many numbers."""
    pieces = range(0, max(1, len(query)), _PAIRS_AT_ONCE)
    here = (slice(start, start + _PAIRS_AT_ONCE) for start in pieces)
    return np.concatenate([np.einsum("pd,pd->p", queries[query[p]], keys[key[p]]) for p in here])

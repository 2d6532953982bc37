"""How much of what full attention looks at is found by rounds of hashing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.attention import keys_from
from reformer_core.attention.operation import implementation
from reformer_core.attention.rule import Rule
from reformer_core.bucketing import BucketPlan, Window
from reformer_core.hashing import Buckets, draw_rotations, hash_generator, hash_vectors
from reformer_viz.measure.collisions import collision_probabilities, in_buckets
from reformer_viz.measure.pairs import plan_by
from reformer_viz.measure.sequence import tensor_of
from reformer_viz.measure.words import count

# How many scores exist at once, so that memory grows with the length and not with its square.
_SCORES_AT_ONCE = 1 << 22
# Up to here every number of rounds is measured, and beyond only 12, 16, 24, 32, 48, ...
_EVERY_ROUND_UP_TO = 8


class Setting(NamedTuple):
    """How the vectors were hashed and cut."""

    n_buckets: Buckets
    chunk_length: int


class Curve(NamedTuple):
    """The mean over heads and seeds, the lowest and the highest of them, for each n_hashes."""

    mean: Float[np.ndarray, " rounds"]
    low: Float[np.ndarray, " rounds"]
    high: Float[np.ndarray, " rounds"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recall:
    """What the first 1, 2, 3, ... rounds of hashing find, for several settings, seeds and heads.

    Each query's *top keys* are the `top_k` that full attention weighs most, or all it has where it
    has fewer. Shares are means over the queries that have a key; "heads" counts the heads of every
    sequence in the batch.
    """

    n_hashes: Int[np.ndarray, " rounds"]
    """The numbers of rounds that were measured."""
    settings: tuple[Setting, ...]
    found: Float[np.ndarray, "settings seeds heads rounds"]
    """The share of a query's top keys that some round shows it."""
    same_bucket: Float[np.ndarray, "settings seeds heads rounds"]
    """The share that some round hashes to the query's bucket, in its window or not."""
    expected: Float[np.ndarray, "settings heads rounds"]
    """Theory's `same_bucket`: 1 - (1 - p)^n with p from every pair's angle."""
    mass_found: Float[np.ndarray, "settings seeds heads rounds"]
    """The share of full attention's weight on the keys that some round shows."""
    error: Float[np.ndarray, "settings seeds heads rounds"] | None
    """The output's distance from full attention's, as a share of that one's length."""
    error_of_repeats: Float[np.ndarray, "settings seeds heads rounds"] | None
    """The same where a pair counts as often as rounds show it."""
    top_mass: Float[np.ndarray, " heads"]
    """The share of full attention's weight on the top keys."""
    top_k: int
    length: int
    causal: bool
    window: Window
    label: str
    n_padded: int = 0
    """How many tokens of the batch are padding, which is neither a query nor a key."""

    def curve(self, name: str, setting: int = 0) -> Curve:
        """Return the mean and the spread of one of the quantities above, by its name."""
        if not 0 <= setting < len(self.settings):
            raise ValueError(
                f"setting must be in 0..{len(self.settings) - 1}, got {setting}: "
                f"{len(self.settings)} were measured"
            )
        values = getattr(self, name)
        if values is None:
            raise ValueError(f"{name} was not measured: give measure_recall the values as well")
        runs = values[setting].reshape(-1, len(self.n_hashes))
        return Curve(runs.mean(0), runs.min(0), runs.max(0))

    def name(self, setting: int) -> str:
        """Say in words how the vectors were hashed and cut."""
        n_buckets, chunk_length = self.settings[setting]
        piece = "chunks" if self.window == "chunks" else "windows"
        return f"{in_buckets(n_buckets)}, {piece} of {chunk_length:,}"

    def describe(self, setting: int | None = None) -> str:
        """Say in a few sentences what few and many rounds find, in every setting or in one."""
        _, seeds, heads, _ = self.found.shape
        chosen = range(len(self.settings)) if setting is None else [setting]
        padding = f" ({self.n_padded:,} of the batch are padding)" if self.n_padded else ""
        return " ".join(
            [
                f"{self.label + ': ' if self.label else ''}{self.length:,} tokens{padding}; heads: "
                f"{heads:,}, draws of rotations: {seeds:,}. A query's "
                f"{count(self.top_k, 'top key')} hold{'s' * (self.top_k == 1)} "
                f"{self.top_mass.mean():.0%} of full attention's weight.",
                *map(self._of_setting, chosen),
            ]
        )

    def _of_setting(self, setting: int) -> str:
        ends = sorted({0, len(self.n_hashes) - 1})
        found = ". ".join(self._of_rounds(setting, place) for place in ends)
        return f"With {self.name(setting)}, {found}."

    def _of_rounds(self, setting: int, place: int) -> str:
        hashed, theory, found, mass = (
            self.curve(name, setting).mean[place]
            for name in ("same_bucket", "expected", "found", "mass_found")
        )
        number = int(self.n_hashes[place])
        s = "s" if number == 1 else ""
        text = (
            f"{count(number, 'round')} put{s} {hashed:.0%} of the top keys into their query's "
            f"bucket (theory {theory:.0%}), {found:.0%} into its window too, and show{s} "
            f"{mass:.0%} of the weight"
        )
        if self.error is not None:
            once, repeated = (
                self.curve(name, setting).mean[place] for name in ("error", "error_of_repeats")
            )
            text += f"; the output is {once:.0%} off ({repeated:.0%} if repeats count)"
        return text


@dataclass(frozen=True, kw_only=True, eq=False)
class FullLook:
    """What full attention does with every query: what the rounds are held against."""

    qk: Float[Tensor, "batch heads length d_head"]
    values: Float[Tensor, "batch heads length d_value"] | None
    keys: Int[Tensor, "batch heads length top_k"]
    """The positions of the keys with the largest scores."""
    real: Bool[Tensor, "batch heads length top_k"]
    """Which of those exist: an early query of a causal sequence has fewer."""
    angle: Float[np.ndarray, "batch heads length top_k"]
    """Between a query and each top key, in radians."""
    weight: Float[Tensor, "batch heads length top_k"]
    """What full attention gives each top key."""
    log_total: Float[Tensor, "batch heads length"]
    """log of the sum of exp(score) over all keys."""
    out: Float[Tensor, "batch heads length d_value"] | None
    top_k: int
    causal: bool
    padding: Bool[Tensor, "batch length"] | None = None

    @property
    def top_mass(self) -> Float[np.ndarray, " heads_of_batch"]:
        """The share of the weight that the top keys have."""
        return self.mean(self.weight.sum(-1))

    def keep(self, top_k: int) -> "FullLook":
        """Return the same with fewer top keys."""
        check_top_k(top_k, self.top_k)
        fewer = {
            name: getattr(self, name)[..., :top_k] for name in ("keys", "real", "angle", "weight")
        }
        return replace(self, top_k=top_k, **fewer)

    def mean(self, per_query: Float[Tensor, "batch heads length"]) -> np.ndarray:
        """Average over the queries that have a key."""
        if self.padding is None:
            return per_query[:, :, int(self.causal) :].mean(-1).flatten().double().cpu().numpy()
        rows = zip(per_query, ~self.padding.to(per_query.device), strict=True)
        means = [row[:, real][:, int(self.causal) :].mean(-1) for row, real in rows]
        return torch.cat(means).double().cpu().numpy()

    def share(self, chosen: Bool[Tensor, "batch heads length top_k"]) -> np.ndarray:
        """Return which share of a query's top keys is chosen, on average."""
        n_keys = self.real.sum(-1).clamp_min(1)
        return self.mean((chosen & self.real).sum(-1) / n_keys)


def measure_recall(
    qk: Tensor | np.ndarray | Sequence,
    values: Tensor | np.ndarray | Sequence | None = None,
    *,
    max_hashes: int = 8,
    n_buckets: Buckets | list[Buckets] = 64,
    chunk_length: int | Sequence[int] = 32,
    top_k: int = 16,
    seeds: Iterable[int] = (0, 1, 2),
    causal: bool = True,
    padding: Tensor | np.ndarray | Sequence | None = None,
    label: str = "",
    **rule,
) -> Recall:
    """Measure what 1 to `max_hashes` rounds find of what full attention looks at.

    `qk` and `values` are "batch heads length d" or "heads length d", such as a traced layer's;
    without values the output's error is not measured. Every number of a *list* of bucket counts is
    tried with every chunk length; a tuple is one count, in factors. `seeds` draw the rotations, of
    which n rounds use the first n. `rule` is the rest of `plan_chunks`'s: window, chunks_before,
    chunks_after (0 when causal, else 1), within_bucket. `padding`, "batch length" or "length", is
    True where a token is padding: such a one is neither a query nor a key. `label` names the
    vectors.

    Reads copies and draws from generators of its own; memory grows with the length alone. Raises
    ValueError for vectors that are not finite, or fewer than two of them that are not padding.
    """
    full = look_at_all(qk, values, top_k=top_k, causal=causal, padding=padding)
    counts = n_buckets if isinstance(n_buckets, list) else [n_buckets]
    lengths = [chunk_length] if isinstance(chunk_length, int) else list(chunk_length)
    settings = [Setting(buckets, length) for buckets in counts for length in lengths]
    rounds = _numbers_of_rounds(max_hashes)
    return compare(full, settings, n_hashes=rounds, seeds=seeds, label=label, **rule)


@torch.no_grad()
def look_at_all(
    qk: Tensor | np.ndarray | Sequence,
    values: Tensor | np.ndarray | Sequence | None = None,
    *,
    top_k: int = 16,
    causal: bool = True,
    padding: Tensor | np.ndarray | Sequence | None = None,
) -> FullLook:
    """Attend to everybody, a block of queries at a time, and keep each query's top keys.

    Same semantics as `full_attention`: unit keys, oneself only when alone, nothing for padding.
    Takes time as length x
    length, so that an explorer does it once for many settings.
    """
    qk = _batched("qk", qk)
    check_top_k(top_k)
    if values is not None:
        values = _batched("values", values)
        if values.shape[:3] != qk.shape[:3]:
            raise ValueError(
                f"values must have one row for each of qk's {tuple(qk.shape[:3])}, got "
                f"{tuple(values.shape[:3])}: take both from one layer"
            )
    batch, heads, length, _ = qk.shape
    if length < 2:
        raise ValueError(f"recall needs at least 2 tokens, got {length}: one has no key to find")
    padding = None if padding is None else _checked(padding, qk)
    rows = max(1, _SCORES_AT_ONCE // (batch * heads * length))
    keys, most = keys_from(qk), min(top_k, length - 1)
    best, log_total = qk.new_empty(batch, heads, length, most), qk.new_empty(batch, heads, length)
    where = torch.empty_like(best, dtype=torch.long)
    out = None if values is None else torch.empty_like(values)
    # Filled in place: results that are kept between two blocks' scores would tear memory to pieces.
    for start in range(0, length, rows):
        block = slice(start, start + rows)
        scores = _scores(qk, keys, block, causal, padding)
        torch.topk(scores, most, out=(best[:, :, block], where[:, :, block]))
        log_total[:, :, block] = scores.logsumexp(-1)
        if values is not None:
            out[:, :, block] = _out_of(scores, log_total, values, block, padding)
    real = best > -torch.inf
    weight = (best - log_total[..., None]).exp().where(real, 0)
    cosine = (best / qk.norm(dim=-1, keepdim=True)).nan_to_num(0, 0, 0).clamp(-1, 1)
    return FullLook(
        qk=qk,
        values=values,
        keys=where,
        real=real,
        angle=cosine.double().arccos().cpu().numpy(),
        weight=weight,
        log_total=log_total,
        out=out,
        top_k=top_k,
        causal=causal,
        padding=padding,
    )


def check_top_k(top_k: int, most: int | None = None) -> None:
    """Refuse a number of keys that nobody has, or more than were looked up."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if most is not None and top_k > most:
        raise ValueError(f"top_k must be at most {most}, got {top_k}: so many were looked up")


def _batched(
    name: str, vectors: Tensor | np.ndarray | Sequence
) -> Float[Tensor, "batch heads length d"]:
    """Copy vectors, with an axis for the batch, in at least float32."""
    vectors = tensor_of(name, vectors)
    shape = tuple(vectors.shape)
    if vectors.dim() not in (3, 4) or 0 in shape:
        raise ValueError(
            f'{name} must be "batch heads length d" or "heads length d" and not empty, got {shape}'
        )
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32), copy=True)
    vectors = vectors if vectors.dim() == 4 else vectors[None]
    broken = (~vectors.isfinite()).nonzero()
    if len(broken):
        raise ValueError(
            f"{name} must be finite, got NaN or infinity at token {int(broken[0, 2])} of head "
            f"{int(broken[0, 1])}: look for the layer that made it"
        )
    return vectors


def _checked(
    padding: Tensor | np.ndarray | Sequence, qk: Float[Tensor, "batch heads length d_head"]
) -> Bool[Tensor, "batch length"]:
    """Return which tokens are padding, on qk's device; refuse what leaves nothing to find."""
    padding = tensor_of("padding", padding).to(qk.device, copy=True)
    padding = padding if padding.dim() == 2 else padding[None]
    if padding.dtype != torch.bool or padding.shape != qk.shape[::2]:
        raise ValueError(
            f"padding must be True or False for each of {tuple(qk.shape[::2])} tokens, got "
            f"{padding.dtype} of shape {tuple(padding.shape)}"
        )
    real = (~padding).sum(-1)
    if real.min() < 2:
        raise ValueError(
            f"recall needs at least 2 tokens that are not padding, got {int(real.min())} in "
            f"sequence {int(real.argmin())}"
        )
    return padding


def _scores(
    qk: Float[Tensor, "batch heads length d_head"],
    keys: Float[Tensor, "batch heads length d_head"],
    block: slice,
    causal: bool,
    padding: Bool[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch heads rows length"]:
    """Return a block of queries' scores with every key that they may attend to."""
    scores = qk[:, :, block] @ keys.mT
    position = torch.arange(qk.shape[2], device=qk.device)
    query = position[block, None]
    scores.masked_fill_(position >= query if causal else position == query, -torch.inf)
    if padding is not None:
        nobody = padding[:, None, block, None] | padding[:, None, None]
        scores.masked_fill_(nobody, -torch.inf)
    return scores


def _out_of(
    scores: Float[Tensor, "batch heads rows length"],
    log_total: Float[Tensor, "batch heads length"],
    values: Float[Tensor, "batch heads length d_value"],
    block: slice,
    padding: Bool[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch heads rows d_value"]:
    """Return a block of queries' output: who is alone has itself, padding has nothing."""
    log_total = log_total[:, :, block, None]
    weights = (scores - log_total).exp().nan_to_num()
    out = torch.where(log_total == -torch.inf, values[:, :, block], weights @ values)
    return out if padding is None else out.masked_fill(padding[:, None, block, None], 0)


@torch.no_grad()
def compare(
    full: FullLook,
    settings: Iterable[Setting],
    *,
    n_hashes: Sequence[int] | int = (1, 2, 4, 8),
    seeds: Iterable[int] = (0,),
    label: str = "",
    **rule,
) -> Recall:
    """Hash what full attention has looked at, and see what these numbers of rounds find of it."""
    settings, seeds, rounds = tuple(settings), tuple(seeds), np.atleast_1d(n_hashes)
    if rounds.dtype.kind != "i" or not len(rounds) or (np.diff(rounds, prepend=0) < 1).any():
        raise ValueError(
            f"n_hashes must be whole numbers from 1 on, each larger than the one before, got "
            f"{n_hashes}: give some such as (1, 2, 4, 8)"
        )
    if not settings or not seeds:
        raise ValueError(f"give at least one setting and one seed, got {settings} and {seeds}")
    rule = {
        "causal": full.causal,
        "chunks_after": int(not full.causal),
        "padding": full.padding,
        **rule,
    }
    runs = [
        [
            _compare_once(full, _plan(full, setting, int(rounds[-1]), seed, rule), rounds)
            for seed in seeds
        ]
        for setting in settings
    ]

    def gather(name: str) -> np.ndarray | None:
        if runs[0][0][name] is None:
            return None
        return np.array([[run[name] for run in of_setting] for of_setting in runs])

    return Recall(
        n_hashes=rounds,
        settings=settings,
        expected=np.array([_expected(full, setting.n_buckets, rounds) for setting in settings]),
        **{name: gather(name) for name in runs[0][0]},
        top_mass=full.top_mass,
        top_k=full.top_k,
        length=full.qk.shape[2],
        causal=full.causal,
        window=rule.get("window", "chunks"),
        label=label,
        n_padded=0 if full.padding is None else int(full.padding.sum()),
    )


def _numbers_of_rounds(max_hashes: int) -> list[int]:
    """Choose which numbers of rounds to measure, the largest always."""
    if max_hashes < 1:
        raise ValueError(f"max_hashes must be at least 1, got {max_hashes}")
    steps = (2**k for k in range(max_hashes.bit_length()))
    sparse = {n for step in steps for n in (step, step * 3 // 2)}
    every = range(1, _EVERY_ROUND_UP_TO + 1)
    return sorted(n for n in {*sparse, *every, max_hashes} if 1 <= n <= max_hashes)


def _plan(full: FullLook, setting: Setting, max_hashes: int, seed: int, rule: dict) -> BucketPlan:
    """Hash and plan all rounds. A round's rotations do not depend on how many follow."""
    _, heads, _, d_head = full.qk.shape
    rotations = [
        draw_rotations(1, heads, d_head, setting.n_buckets, hash_generator(seed, round, 0))
        for round in range(max_hashes)
    ]
    directions = torch.cat(rotations, dim=1).to(full.qk.device)
    buckets = hash_vectors(full.qk, directions, setting.n_buckets)
    return plan_by(buckets, n_buckets=setting.n_buckets, chunk_length=setting.chunk_length, **rule)


def _compare_once(
    full: FullLook, plan: BucketPlan, rounds: Int[np.ndarray, " rounds"]
) -> dict[str, Float[np.ndarray, "heads rounds"] | None]:
    """Measure everything with one draw of rotations."""
    attended = [_attend(full, plan, int(n)) for n in rounds]
    masses, errors, errors_of_repeats = (np.array(part).T for part in zip(*attended, strict=True))
    known = full.out is not None
    return {
        "found": _share_of_any(full, _seen(full, plan))[:, rounds - 1],
        "same_bucket": _share_of_any(full, _mates(full, plan))[:, rounds - 1],
        "mass_found": masses,
        "error": errors if known else None,
        "error_of_repeats": errors_of_repeats if known else None,
    }


def _mates(full: FullLook, plan: BucketPlan) -> Iterator[Bool[Tensor, "batch heads length top_k"]]:
    """Say round by round which top keys have their query's bucket."""
    for buckets in plan.buckets.unbind(2):
        yield _of_keys(buckets, full) == buckets[..., None]


def _seen(full: FullLook, plan: BucketPlan) -> Iterator[Bool[Tensor, "batch heads length top_k"]]:
    """Say round by round which top keys their query sees; `real` knows who comes before whom."""
    for slot, first, last in zip(
        *(part.unbind(2) for part in (plan.slot, plan.first, plan.last)), strict=True
    ):
        of_key = _of_keys(slot, full)
        begin, end = (edge.gather(-1, slot)[..., None] for edge in (first, last))
        yield (begin <= of_key) & (of_key <= end)


def _of_keys(
    of_position: Int[Tensor, "batch heads length"], full: FullLook
) -> Int[Tensor, "batch heads length top_k"]:
    """Look up a number of every top key."""
    return of_position.gather(-1, full.keys.flatten(2)).view(full.keys.shape)


def _share_of_any(
    full: FullLook, by_round: Iterator[Bool[Tensor, "batch heads length top_k"]]
) -> Float[np.ndarray, "heads rounds"]:
    """Return which share of the top keys at least one of the first n rounds has."""
    shares, any_round = [], torch.zeros_like(full.real)
    for in_this_round in by_round:
        any_round = any_round | in_this_round
        shares.append(full.share(any_round))
    return np.array(shares).T


def _attend(full: FullLook, plan: BucketPlan, n_hashes: int) -> tuple[np.ndarray, ...]:
    """Attend with the first rounds: the weight found, the error, and the error with repeats."""
    tensors = ("buckets", "order", "slot", "first", "last")
    first_rounds = {name: getattr(plan, name)[:, :, :n_hashes] for name in tensors}
    plan = replace(plan, **first_rounds)
    mass, out = attend_to_found(full, plan)
    if full.out is None:
        return full.mean(mass), full.mean(mass), full.mean(mass)
    _, repeated = attend_to_found(full, plan, count_repeats=True)
    return full.mean(mass), _distance(out, full.out), _distance(repeated, full.out)


@torch.no_grad()
def attend_to_found(
    full: FullLook, plan: BucketPlan, count_repeats: bool = False
) -> tuple[Float[Tensor, "batch heads length"], Float[Tensor, "batch heads length d_value"]]:
    """Attend to what a plan shows; return the share of full attention's weight, and the output.

    The share is exp(log_total - full attention's log_total): 0 where a query sees nobody. Where
    repeats count, or a query has no key at all, it means nothing.
    """
    values = full.qk[..., :1] if full.values is None else full.values
    rule = Rule(plan=plan, count_repeats=count_repeats)
    out, log_total = implementation(full.qk, values).attend(full.qk, values, rule)
    return (log_total - full.log_total).exp(), out


def _distance(
    out: Float[Tensor, "batch heads length d_value"],
    wanted: Float[Tensor, "batch heads length d_value"],
) -> Float[np.ndarray, " heads_of_batch"]:
    """Return how far outputs are from what was wanted, as a share of its length."""
    off = (out - wanted).flatten(2).norm(dim=-1) / wanted.flatten(2).norm(dim=-1)
    return off.flatten().double().cpu().numpy()


def _expected(
    full: FullLook, n_buckets: Buckets, rounds: Int[np.ndarray, " rounds"]
) -> Float[np.ndarray, "heads rounds"]:
    """Average 1 - (1 - p)^n over every query's top keys."""
    missed = 1 - collision_probabilities(np.rad2deg(full.angle), n_buckets)
    real = full.real.cpu().numpy()
    n_keys = np.maximum(real.sum(-1), 1)
    shares = [((1 - missed**n) * real).sum(-1) / n_keys for n in rounds]
    return np.array([full.mean(torch.from_numpy(share)) for share in shares]).T

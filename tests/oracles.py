"""Slow, obvious versions of everything, from the paper alone: NumPy, float64 and plain loops.

Nothing here is shared with what it checks: not an import, not a helper, not a constant.
One sequence, one head at a time; `every` walks over batch and heads.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

Array = np.ndarray


# ---------------------------------------------------------------- hashing (Sec. 2)


def bucket_of(vector: Array, rotation: Array, factors: tuple[int, ...] | None = None) -> int:
    """Number the bucket of one vector: argmax([xR; -xR]), one choice per factor."""
    projected = np.asarray(vector, np.float64) @ np.asarray(rotation, np.float64)
    bucket, place, column = 0, 1, 0
    for factor in factors or (2 * len(projected),):
        part = projected[column : column + factor // 2]
        bucket += place * int(np.concatenate([part, -part]).argmax())
        place *= factor
        column += factor // 2
    return bucket


# ---------------------------------------------------------------- who sees whom (Eq. 4-6)


def sorted_positions(buckets: Array, padding: Array | None = None) -> list[int]:
    """List the positions by bucket, in reading order within one, padding at the end."""
    positions = range(len(buckets))
    real = [i for i in positions if padding is None or not padding[i]]
    padded = [i for i in positions if padding is not None and padding[i]]
    return sorted(real, key=lambda i: (buckets[i], i)) + padded


def seen_in_round(
    buckets: Array,
    *,
    chunk_length: int,
    causal: bool,
    chunks_before: int = 1,
    chunks_after: int = 0,
    window: str = "chunks",
    within_bucket: bool = True,
    padding: Array | None = None,
) -> list[set[int]]:
    """Give for every position the set of positions that it may see in one round."""
    order = sorted_positions(buckets, padding)
    slot = {position: place for place, position in enumerate(order)}
    hidden = [False] * len(buckets) if padding is None else list(padding)

    def in_window(i: int, j: int) -> bool:
        if window == "chunks":
            distance = slot[j] // chunk_length - slot[i] // chunk_length
            return -chunks_before <= distance <= chunks_after
        distance = slot[j] - slot[i]
        return -chunk_length * chunks_before <= distance <= chunk_length * chunks_after

    def may_see(i: int, j: int) -> bool:
        if i == j or hidden[i] or hidden[j]:
            return False
        if causal and j > i:
            return False
        if within_bucket and buckets[i] != buckets[j]:
            return False
        return in_window(i, j)

    positions = range(len(buckets))
    return [{j for j in positions if may_see(i, j)} for i in positions]


def as_matrix(seen: list[set[int]]) -> Array:
    """Write sets of seen positions as a bool matrix, query by key."""
    matrix = np.zeros((len(seen), len(seen)), bool)
    for i, others in enumerate(seen):
        for j in others:
            matrix[i, j] = True
    return matrix


# ---------------------------------------------------------------- attention


def unit(vector: Array) -> Array:
    """Scale a vector to length one; the zero vector stays zero."""
    norm = math.sqrt(sum(float(x) ** 2 for x in vector))
    return np.zeros_like(vector) if norm == 0 else vector / norm


def pair_weights(scores: dict[int, float], times: dict[int, int]) -> dict[int, float]:
    """Take the softmax of scores over keys that count several times."""
    top = max(scores.values())
    unnormalised = {j: times[j] * math.exp(scores[j] - top) for j in scores}
    total = sum(unnormalised.values())
    return {j: weight / total for j, weight in unnormalised.items()}


def weights_of_query(
    i: int, qk: Array, rounds: list[list[set[int]]], count_repeats: bool
) -> dict[int, float]:
    """Weigh the union of what position i sees in any round; only itself when that is empty."""
    union = set().union(*(seen[i] for seen in rounds))
    if not union:
        return {}
    times = {j: sum(j in seen[i] for seen in rounds) if count_repeats else 1 for j in union}
    return pair_weights({j: float(qk[i] @ unit(qk[j])) for j in union}, times)


def lsh_attention(
    qk: Array,
    values: Array,
    rounds: list[list[set[int]]],
    *,
    padding: Array | None = None,
    count_repeats: bool = False,
    keep: Array | None = None,
    dropout: float = 0.0,
) -> Array:
    """Attend over the union of the rounds: one softmax, unit keys, self only when alone.

    `rounds[r][i]` is the set that i sees in round r; `keep[i, j]` says which weights survive.
    """
    out = np.zeros_like(values, dtype=np.float64)
    for i in range(len(qk)):
        if padding is not None and padding[i]:
            continue
        weights = weights_of_query(i, qk, rounds, count_repeats)
        if not weights:
            out[i] = values[i]
        for j, weight in weights.items():
            kept = 1.0 if keep is None else float(keep[i, j]) / (1 - dropout)
            out[i] += kept * weight * values[j]
    return out


def lsh_attention_gradient(
    qk: Array,
    values: Array,
    rounds: list[list[set[int]]],
    d_out: Array,
    *,
    padding: Array | None = None,
    count_repeats: bool = False,
    keep: Array | None = None,
    dropout: float = 0.0,
) -> tuple[Array, Array]:
    """Differentiate sum(out * d_out) by hand, pair by pair: by qk and by values."""
    keys = np.array([unit(row) for row in qk])
    d_query, d_key, d_values = np.zeros_like(qk), np.zeros_like(qk), np.zeros_like(values)
    for i in range(len(qk)):
        if padding is not None and padding[i]:
            continue
        weights = weights_of_query(i, qk, rounds, count_repeats)
        if not weights:
            d_values[i] += d_out[i]
        kept = {j: 1.0 if keep is None else float(keep[i, j]) / (1 - dropout) for j in weights}
        d_weight = {j: kept[j] * float(d_out[i] @ values[j]) for j in weights}
        mean = sum(weights[j] * d_weight[j] for j in weights)
        for j, weight in weights.items():
            d_values[j] += kept[j] * weight * d_out[i]
            d_score = weight * (d_weight[j] - mean)
            d_query[i] += d_score * keys[j]
            d_key[j] += d_score * qk[i]
    for j in range(len(qk)):  # the key is qk / |qk|: only what is across it moves it
        norm = math.sqrt(float(qk[j] @ qk[j]))
        if norm > 0:
            d_query[j] += (d_key[j] - keys[j] * float(keys[j] @ d_key[j])) / norm
    return d_query, d_values


def lsh_attention_round_by_round(
    qk: Array, values: Array, rounds: list[list[set[int]]], *, padding: Array | None = None
) -> Array:
    """Attend as the paper's appendix does: each round alone, joined by its logsumexp.

    In round r a pair weighs exp(q.k - log N_ij - z_r), N_ij the number of rounds that see it;
    a round has the share exp(z_r - logsumexp_r z_r) of the output.
    """
    keys = np.array([unit(row) for row in qk])
    out = np.zeros_like(values, dtype=np.float64)
    for i in range(len(qk)):
        if padding is not None and padding[i]:
            continue
        outputs, totals = [], []
        for seen in rounds:
            if not seen[i]:
                continue
            others = sorted(seen[i])
            repeats = [sum(j in again[i] for again in rounds) for j in others]
            scores = [
                float(qk[i] @ keys[j]) - math.log(n) for j, n in zip(others, repeats, strict=True)
            ]
            total = np.logaddexp.reduce(scores)
            shares = [math.exp(score - total) for score in scores]
            outputs.append(sum(p * values[j] for p, j in zip(shares, others, strict=True)))
            totals.append(total)
        if not totals:
            out[i] = values[i]
            continue
        everything = np.logaddexp.reduce(totals)
        out[i] = sum(math.exp(t - everything) * o for t, o in zip(totals, outputs, strict=True))
    return out


def everyone(length: int, *, causal: bool, padding: Array | None = None) -> list[set[int]]:
    """Let every position see all others (only the earlier ones when causal), but no padding."""
    hidden = [False] * length if padding is None else list(padding)
    return [
        {
            j
            for j in range(length)
            if j != i and not hidden[i] and not hidden[j] and (j < i or not causal)
        }
        for i in range(length)
    ]


def full_attention(
    qk: Array, values: Array, *, causal: bool, padding: Array | None = None
) -> Array:
    """Attend to everyone: the same unit keys, self only when alone, zeros where padding is."""
    seen = everyone(len(qk), causal=causal, padding=padding)
    return lsh_attention(qk, values, [seen], padding=padding)


def seen_locally(
    length: int, *, chunk_length: int, causal: bool, window: str, padding: Array | None = None
) -> list[set[int]]:
    """Give what a position sees in the local layer, itself included.

    chunks: its own chunk, the one before it, and when not causal the one after it.
    sliding: the last `chunk_length` positions with its own, and when not causal as many after it.
    """
    hidden = [False] * length if padding is None else list(padding)

    def may_see(i: int, j: int) -> bool:
        if hidden[i] or hidden[j] or (causal and j > i):
            return False
        if window == "chunks":
            return abs(j // chunk_length - i // chunk_length) <= 1
        return abs(i - j) < chunk_length

    return [{j for j in range(length) if may_see(i, j)} for i in range(length)]


def local_attention(
    queries: Array,
    keys: Array,
    values: Array,
    *,
    chunk_length: int,
    causal: bool,
    window: str = "chunks",
    padding: Array | None = None,
) -> Array:
    """Attend in a local window: scaled dot product, self included, zeros where padding is."""
    out = np.zeros((len(queries), values.shape[-1]))
    scale = 1 / math.sqrt(queries.shape[-1])
    seen = seen_locally(
        len(queries), chunk_length=chunk_length, causal=causal, window=window, padding=padding
    )
    for i, others in enumerate(seen):
        if not others:
            continue
        scores = {j: scale * float(queries[i] @ keys[j]) for j in others}
        for j, weight in pair_weights(scores, dict.fromkeys(others, 1)).items():
            out[i] += weight * values[j]
    return out


# ---------------------------------------------------------------- the rest of the model


def axial_position(position: int, tables: list[Array]) -> Array:
    """Concatenate one vector per axis: position = first * len(second table) + second, and so on."""
    parts = []
    for table in reversed(tables):
        position, index = divmod(position, len(table))
        parts.insert(0, table[index])
    return np.concatenate(parts)


def reversible_forward(
    x1: Array, x2: Array, blocks: list[tuple[Callable, Callable]]
) -> tuple[Array, Array]:
    """Run y1 = x1 + f(x2), y2 = x2 + g(y1) through all blocks (Eq. 9)."""
    for f, g in blocks:
        x1 = x1 + f(x2)
        x2 = x2 + g(x1)
    return x1, x2


def reversible_inverse(
    y1: Array, y2: Array, blocks: list[tuple[Callable, Callable]]
) -> tuple[Array, Array]:
    """Undo it: x2 = y2 - g(y1), x1 = y1 - f(x2), from the last block to the first."""
    for f, g in reversed(blocks):
        y2 = y2 - g(y1)
        y1 = y1 - f(y2)
    return y1, y2


def cross_entropy(logits: Array, tokens: Array, weights: Array | None = None) -> float:
    """Average -log p(tokens[t] | logits[t - 1]) over t >= 1 in nats, each with its weight."""
    total = share = 0.0
    for row, (sequence, line) in enumerate(zip(tokens, logits, strict=True)):
        for t in range(1, len(sequence)):
            weight = 1.0 if weights is None else float(weights[row][t])
            log_p = line[t - 1][sequence[t]] - np.logaddexp.reduce(line[t - 1])
            total -= weight * float(log_p)
            share += weight
    return total / share


def next_token_distribution(
    logits: Array,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    """Give the distribution to sample from: temperature, then the k likeliest, then the nucleus.

    The nucleus is the smallest set of likeliest tokens whose probabilities reach top_p. The
    likeliest token always stays.
    """
    logits = np.asarray(logits, np.float64) / temperature
    likeliest = sorted(range(len(logits)), key=lambda token: -logits[token])
    if top_k is not None:
        likeliest = likeliest[:top_k]
    unnormalised = {token: math.exp(logits[token] - logits[likeliest[0]]) for token in likeliest}
    total = sum(unnormalised.values())
    if top_p is not None:
        reached, kept = 0.0, []
        for token in likeliest:
            if reached >= top_p and kept:
                break
            kept.append(token)
            reached += unnormalised[token] / total
        likeliest = kept
        total = sum(unnormalised[token] for token in likeliest)
    distribution = np.zeros(len(logits))
    for token in likeliest:
        distribution[token] = unnormalised[token] / total
    return distribution


def duplicate_task(word: list[int]) -> tuple[list[int], list[float]]:
    """Write 0w0w and which tokens count: those of the second half, 0 and w (Sec. 2.1)."""
    tokens = [0, *word, 0, *word]
    half = len(tokens) // 2
    return tokens, [0.0] * half + [1.0] * half


# ---------------------------------------------------------------- walking over batch and heads


def every(batch: int, heads: int) -> Iterator[tuple[int, int]]:
    """Walk over all (example, head)."""
    for b in range(batch):
        for h in range(heads):
            yield b, h

"""The GPU's side of LSH attention: three Triton kernels, each on tiles of one round's sorted order.

A tile is a run of slots. Its positions come from `order`, and their vectors are fetched from where
they lie: nothing is sorted in memory. What a tile's queries may see is again a run of slots, so
that every kernel is one loop over one run. Vectors are fetched in their own dtype, everything is
summed in float32, and no two programs write the same place: results do not depend on luck.

Names: `row` is one head of one sequence; M counts queries, N counts keys; a width D or V that is no
power of two is padded to BLOCK_D or BLOCK_V by masks.
"""

import os
from typing import no_type_check  # the tests' shape checker must not wrap what Triton compiles

import triton
import triton.language as tl

# Slots looked at together when a key tile searches for its queries.
_SEARCHED = tl.constexpr(128)
# The interpreter holds bfloat16 as integers and would multiply those.
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")

# What changes from call to call is no reason to compile anew.
_RUNTIME = ["heads", "length", "rounds", "round", "tiles"]
_RUNTIME += ["seed_low", "seed_high", "dropped_below", "share", "reach_before", "reach_after"]


@triton.jit(do_not_specialize=_RUNTIME)
@no_type_check
def attend(
    qk,
    values,
    inverse_norm,
    order,
    first,
    last,
    slot_at,
    run_at,
    padding,
    out,
    log_total,
    qk_batch,
    qk_head,
    qk_row,
    value_batch,
    value_head,
    value_row,
    heads,
    length,
    rounds,
    round,
    tiles,
    seed_low,
    seed_high,
    dropped_below,
    share,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HIDDEN: tl.constexpr,
    ONCE: tl.constexpr,
    DROPOUT: tl.constexpr,
    IS_FIRST: tl.constexpr,
):
    """Go on with the softmax of a tile of queries, over the pairs that this round adds.

    Before and after, `out` is the softmax over all pairs so far and `log_total` its log-sum-exp:
    a round goes on from them as from a single key of score `log_total` and value `out`.
    """
    row, batch, head, start = _place(heads, tiles, BLOCK_M)
    qk += batch * qk_batch + head * qk_head
    values += batch * value_batch + head * value_head
    out += row * length * V
    inverse_norm += row * length
    log_total += row * length
    in_round = (row * rounds + round) * length
    slot_at += row * length * rounds
    run_at += row * length * rounds

    query_slot = start + tl.arange(0, BLOCK_M)
    real = query_slot < length
    query = _positions(order + in_round, query_slot, length)
    run_first = tl.load(first + in_round + query_slot, mask=real, other=length)
    run_last = tl.load(last + in_round + query_slot, mask=real, other=-1)
    q = _fetch(qk, query, qk_row, real, D, BLOCK_D)

    if IS_FIRST:
        top = tl.full([BLOCK_M], float("-inf"), tl.float32)
        attended = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    else:
        top = tl.load(log_total + query, mask=real, other=float("-inf"))
        some = top != float("-inf")
        attended = _fetch(out, query, V, some, V, BLOCK_V)
    total = tl.where(top == float("-inf"), 0.0, 1.0)
    word = _head_word(seed_low, seed_high, batch, head)

    seen = run_first <= run_last
    begin = tl.min(tl.where(seen, run_first, length))
    end = tl.max(tl.where(seen, run_last + 1, 0))
    for key_start in range(begin, end, BLOCK_N):
        key_slot = key_start + tl.arange(0, BLOCK_N)
        key = _positions(order + in_round, key_slot, length)
        k = _fetch(qk, key, qk_row, key_slot < length, D, BLOCK_D)
        v = _fetch(values, key, value_row, key_slot < length, V, BLOCK_V)
        counts = _counts(query, query_slot, run_first, run_last, key, key_slot, HIDDEN)
        scores = _scores(q, k, tl.load(inverse_norm + key), counts)
        if ONCE:
            scores = _hide_seen(scores, query, key, slot_at, run_at, rounds, round)
        new_top = tl.maximum(top, tl.max(scores, 1))
        at = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp(scores - at[:, None])
        shrink = tl.exp(top - at)
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT:
            weights = tl.where(_kept(word, query, key, dropped_below), weights * share, 0.0)
        attended = attended * shrink[:, None] + _dot(weights.to(v.dtype), v)
        top = new_top

    alone = total == 0
    attended = attended / tl.where(alone, 1.0, total)[:, None]
    own = _fetch(values, query, value_row, real & alone, V, BLOCK_V)
    attended = tl.where(alone[:, None], own.to(tl.float32), attended)
    if padding is not None:
        padded = tl.load(padding + batch * length + query) != 0
        attended = tl.where(padded[:, None], 0.0, attended)
    _put(out, query, V, real, V, BLOCK_V, attended)
    tl.store(log_total + query, top + tl.log(tl.where(alone, 1.0, total)), mask=real)


@triton.jit(do_not_specialize=_RUNTIME)
@no_type_check
def query_gradients(
    qk,
    values,
    inverse_norm,
    order,
    first,
    last,
    slot_at,
    run_at,
    out,
    d_out,
    log_total,
    projected,
    d_qk,
    qk_batch,
    qk_head,
    qk_row,
    value_batch,
    value_head,
    value_row,
    d_out_batch,
    d_out_head,
    d_out_row,
    heads,
    length,
    rounds,
    round,
    tiles,
    seed_low,
    seed_high,
    dropped_below,
    share,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HIDDEN: tl.constexpr,
    ONCE: tl.constexpr,
    DROPOUT: tl.constexpr,
    IS_FIRST: tl.constexpr,
):
    """Add a round's part to the gradient of a tile of queries; the first round starts it.

    The first round also leaves `projected` = d_out . out, which every later tile needs.
    """
    row, batch, head, start = _place(heads, tiles, BLOCK_M)
    qk += batch * qk_batch + head * qk_head
    values += batch * value_batch + head * value_head
    out += row * length * V
    d_out += batch * d_out_batch + head * d_out_head
    inverse_norm += row * length
    log_total += row * length
    projected += row * length
    d_qk += row * length * D
    in_round = (row * rounds + round) * length
    slot_at += row * length * rounds
    run_at += row * length * rounds

    query_slot = start + tl.arange(0, BLOCK_M)
    real = query_slot < length
    query = _positions(order + in_round, query_slot, length)
    run_first = tl.load(first + in_round + query_slot, mask=real, other=length)
    run_last = tl.load(last + in_round + query_slot, mask=real, other=-1)
    q = _fetch(qk, query, qk_row, real, D, BLOCK_D)
    d_attended = _fetch(d_out, query, d_out_row, real, V, BLOCK_V)
    log_sum = _log_total(log_total, query)
    if IS_FIRST:
        attended = _fetch(out, query, V, real, V, BLOCK_V)
        along = tl.sum(attended * d_attended.to(tl.float32), 1)
        tl.store(projected + query, along, mask=real)
        d_query = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    else:
        along = tl.load(projected + query)
        d_query = _fetch(d_qk, query, D, real, D, BLOCK_D)
    word = _head_word(seed_low, seed_high, batch, head)

    seen = run_first <= run_last
    begin = tl.min(tl.where(seen, run_first, length))
    end = tl.max(tl.where(seen, run_last + 1, 0))
    for key_start in range(begin, end, BLOCK_N):
        key_slot = key_start + tl.arange(0, BLOCK_N)
        key = _positions(order + in_round, key_slot, length)
        k = _fetch(qk, key, qk_row, key_slot < length, D, BLOCK_D)
        v = _fetch(values, key, value_row, key_slot < length, V, BLOCK_V)
        shrink = tl.load(inverse_norm + key)
        counts = _counts(query, query_slot, run_first, run_last, key, key_slot, HIDDEN)
        scores = _scores(q, k, shrink, counts)
        if ONCE:
            scores = _hide_seen(scores, query, key, slot_at, run_at, rounds, round)
        weights = tl.exp(scores - log_sum[:, None])
        d_weights = _dot(d_attended, tl.trans(v))
        if DROPOUT:
            d_weights = tl.where(_kept(word, query, key, dropped_below), d_weights * share, 0.0)
        d_scores = weights * (d_weights - along[:, None])
        unit = (k.to(tl.float32) * shrink[:, None]).to(k.dtype)
        d_query += _dot(d_scores.to(k.dtype), unit)
    _put(d_qk, query, D, real, D, BLOCK_D, d_query)


@triton.jit(do_not_specialize=_RUNTIME)
@no_type_check
def key_gradients(
    qk,
    values,
    inverse_norm,
    order,
    first,
    last,
    slot_at,
    run_at,
    d_out,
    log_total,
    projected,
    d_qk,
    d_values,
    qk_batch,
    qk_head,
    qk_row,
    value_batch,
    value_head,
    value_row,
    d_out_batch,
    d_out_head,
    d_out_row,
    heads,
    length,
    rounds,
    round,
    tiles,
    seed_low,
    seed_high,
    dropped_below,
    share,
    reach_before,
    reach_after,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HIDDEN: tl.constexpr,
    ONCE: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """Add what a tile of keys gets in this round, through k = q / |q|, and what its values get."""
    row, batch, head, start = _place(heads, tiles, BLOCK_N)
    qk += batch * qk_batch + head * qk_head
    values += batch * value_batch + head * value_head
    d_out += batch * d_out_batch + head * d_out_head
    inverse_norm += row * length
    log_total += row * length
    projected += row * length
    d_qk += row * length * D
    d_values += row * length * V
    in_round = (row * rounds + round) * length
    slot_at += row * length * rounds
    run_at += row * length * rounds

    key_slot = start + tl.arange(0, BLOCK_N)
    real = key_slot < length
    key = _positions(order + in_round, key_slot, length)
    k = _fetch(qk, key, qk_row, real, D, BLOCK_D)
    v = _fetch(values, key, value_row, real, V, BLOCK_V)
    shrink = tl.load(inverse_norm + key)
    d_key = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    d_value = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    word = _head_word(seed_low, seed_high, batch, head)

    stop = tl.minimum(start + BLOCK_N, length)
    begin, end = _who_sees(
        first + in_round,
        last + in_round,
        start,
        stop,
        tl.maximum(start - reach_after, 0),
        tl.minimum(stop + reach_before, length),
        length,
    )
    for query_start in range(begin, end, BLOCK_M):
        query_slot = query_start + tl.arange(0, BLOCK_M)
        here = query_slot < length
        query = _positions(order + in_round, query_slot, length)
        run_first = tl.load(first + in_round + query_slot, mask=here, other=length)
        run_last = tl.load(last + in_round + query_slot, mask=here, other=-1)
        q = _fetch(qk, query, qk_row, here, D, BLOCK_D)
        d_attended = _fetch(d_out, query, d_out_row, here, V, BLOCK_V)
        counts = _counts(query, query_slot, run_first, run_last, key, key_slot, HIDDEN)
        scores = _scores(q, k, shrink, counts)
        if ONCE:
            scores = _hide_seen(scores, query, key, slot_at, run_at, rounds, round)
        weights = tl.exp(scores - _log_total(log_total, query)[:, None])
        d_weights = _dot(d_attended, tl.trans(v))
        dropped = weights
        if DROPOUT:
            kept = _kept(word, query, key, dropped_below)
            d_weights = tl.where(kept, d_weights * share, 0.0)
            dropped = tl.where(kept, weights * share, 0.0)
        d_scores = weights * (d_weights - tl.load(projected + query)[:, None])
        d_value += _dot(tl.trans(dropped.to(v.dtype)), d_attended)
        d_key += _dot(tl.trans(d_scores.to(k.dtype)), q)

    # Only what is at a right angle to a key of unit length moves it.
    unit = k.to(tl.float32) * shrink[:, None]
    d_key = (d_key - unit * tl.sum(unit * d_key, 1)[:, None]) * shrink[:, None]
    _put(d_qk, key, D, real, D, BLOCK_D, d_key + _fetch(d_qk, key, D, real, D, BLOCK_D))
    _put(d_values, key, V, real, V, BLOCK_V, d_value + _fetch(d_values, key, V, real, V, BLOCK_V))


@triton.jit
@no_type_check
def _place(heads, tiles, BLOCK: tl.constexpr):
    """Say which row, batch and head a program works on, in 64 bits, and its tile's first slot."""
    program = tl.program_id(0)
    row = program // tiles
    start = (program % tiles) * BLOCK
    return row.to(tl.int64), (row // heads).to(tl.int64), (row % heads).to(tl.int64), start


@triton.jit
@no_type_check
def _positions(order, slots, length):
    """Read who stands in the slots; beyond the last slot, 0 stands in for nobody."""
    return tl.load(order + slots, mask=slots < length, other=0).to(tl.int32)


@triton.jit
@no_type_check
def _fetch(vectors, positions, stride, wanted, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Gather the vectors of the wanted positions, zeros for the others and beyond the width."""
    column = tl.arange(0, BLOCK)
    places = positions.to(tl.int64)[:, None] * stride + column[None, :]
    mask = wanted[:, None] & (column < WIDTH)[None, :]
    return tl.load(vectors + places, mask=mask, other=0.0)


@triton.jit
@no_type_check
def _put(vectors, positions, stride, wanted, WIDTH: tl.constexpr, BLOCK: tl.constexpr, new):
    """Scatter vectors to the wanted positions."""
    column = tl.arange(0, BLOCK)
    places = positions.to(tl.int64)[:, None] * stride + column[None, :]
    mask = wanted[:, None] & (column < WIDTH)[None, :]
    tl.store(vectors + places, new.to(vectors.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def _dot(a, b):
    """Multiply matrices and sum in float32: float32 inputs never as TF32, its default."""
    if _INTERPRETED and a.dtype == tl.bfloat16:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
@no_type_check
def _scores(q, k, inverse_norm, counts):
    """Return q . k / |k| of the pairs that count, else -inf."""
    return tl.where(counts, _dot(q, tl.trans(k)) * inverse_norm[None, :], float("-inf"))


@triton.jit
@no_type_check
def _log_total(log_total, query):
    """Read log-sum-exp; 0 for who sees nobody, whose scores are all -inf anyway."""
    log_sum = tl.load(log_total + query)
    return tl.where(log_sum == float("-inf"), 0.0, log_sum)


@triton.jit
@no_type_check
def _counts(query, query_slot, run_first, run_last, key, key_slot, HIDDEN: tl.constexpr):
    """Say which pairs this round shows: those in the run that are not HIDDEN inside it."""
    counts = (key_slot[None, :] >= run_first[:, None]) & (key_slot[None, :] <= run_last[:, None])
    if HIDDEN == "later":
        counts &= key[None, :] < query[:, None]
    if HIDDEN == "itself":
        counts &= key_slot[None, :] != query_slot[:, None]
    return counts


@triton.jit
@no_type_check
def _hide_seen(scores, query, key, slot_at, run_at, rounds, round):
    """Put -inf where an earlier round has shown the pair: it counted there.

    The scores carry the answer from round to round, because a mask would cost a register a pair.
    """
    slot_at += key.to(tl.int64) * rounds
    run_at += query.to(tl.int64) * rounds
    for index in range(round):
        slot = tl.load(slot_at + index)[None, :]
        run = tl.load(run_at + index)
        seen = (slot >= run.to(tl.int32)[:, None]) & (slot <= (run >> 32).to(tl.int32)[:, None])
        scores = tl.where(seen, float("-inf"), scores)
    return scores


@triton.jit
@no_type_check
def _who_sees(first, last, start, stop, begin, end, length):
    """Narrow a range of query slots to those whose run meets the key slots [start, stop)."""
    lowest = tl.full([_SEARCHED], length, tl.int32)
    highest = tl.zeros([_SEARCHED], tl.int32)
    for searched in range(begin, end, _SEARCHED):
        slots = searched + tl.arange(0, _SEARCHED)
        run_first = tl.load(first + slots, mask=slots < end, other=length)
        run_last = tl.load(last + slots, mask=slots < end, other=-1)
        meets = (run_first <= run_last) & (run_first < stop) & (run_last >= start)
        lowest = tl.minimum(lowest, tl.where(meets, slots, length))
        highest = tl.maximum(highest, tl.where(meets, slots + 1, 0))
    return tl.min(lowest), tl.max(highest)


@triton.jit
@no_type_check
def _mix(word):
    """Scramble 32 bits exactly as `dropout._mix` does."""
    word = (word ^ (word >> 16)) * 0x7FEB352D
    word = (word ^ (word >> 15)) * 0x846CA68B
    return word ^ (word >> 16)


@triton.jit
@no_type_check
def _head_word(seed_low, seed_high, batch, head):
    """Mix the seed, the batch and the head into the word that a head's coins start from."""
    word = _mix(_mix(seed_low.to(tl.uint32)) ^ seed_high.to(tl.uint32))
    return _mix(_mix(word ^ batch.to(tl.uint32)) + head.to(tl.uint32))


@triton.jit
@no_type_check
def _kept(word, query, key, dropped_below):
    """Toss the coin of every pair exactly as `dropout.kept` does."""
    of_query = _mix(word + 2 * query.to(tl.uint32))
    of_key = _mix(word + 2 * key.to(tl.uint32) + 1)
    coin = _mix(of_query[:, None] ^ of_key[None, :]) >> 8
    return coin.to(tl.int32) >= dropped_below

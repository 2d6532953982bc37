"""Exercises on reversible layers: undo a block and a stack, repeat dropout, count what is kept."""

import torch
from torch import Tensor, nn

from reformer_core.config import ReformerConfig
from reformer_core.layers import AttentionSublayer, FeedForwardSublayer, LSHSelfAttention
from reformer_core.reversible import ReversibleBlock
from reformer_viz.lessons.example import sixteen_tokens
from reformer_viz.lessons.exercise import Exercise, Mistake
from reformer_viz.measure.memory import measure_memory


def _blocks(n_layers: int) -> list[ReversibleBlock]:
    """Build layers of the package on vectors of width 8, in float64, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(n_layers)
        return [
            ReversibleBlock(AttentionSublayer(8, _attention(layer)), FeedForwardSublayer(8, 16))
            .double()
            .eval()
            for layer in range(n_layers)
        ]


def _attention(layer: int) -> LSHSelfAttention:
    sizes = {"max_length": 16, "n_hashes": 2, "n_buckets": 4, "chunk_length": 4}
    return LSHSelfAttention(8, 1, 8, layer=layer, **sizes)


@torch.no_grad()
def _after(blocks: list[ReversibleBlock]) -> tuple[Tensor, Tensor]:
    """Return both streams after some blocks."""
    x1 = sixteen_tokens()[0].double()
    x2 = x1.flip(1)
    for block in blocks:
        x1, x2 = block(x1, x2)
    return x1, x2


# --------------------------------------------------------------------------------- one block


def _undo(block: ReversibleBlock, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    x2 = y2 - block.g(y1)[0]
    return y1 - block.f(x2)[0], x2


def _first_things_first(block: ReversibleBlock, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    x1 = y1 - block.f(y2)[0]
    return x1, y2 - block.g(x1)[0]


def _old_stream(block: ReversibleBlock, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    return y1 - block.f(y2)[0], y2 - block.g(y1)[0]


def _added(block: ReversibleBlock, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    x2 = y2 + block.g(y1)[0]
    return y1 + block.f(x2)[0], x2


def _exchanged(block: ReversibleBlock, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    x2 = y2 - block.f(y1)[0]
    return y1 - block.g(x2)[0], x2


undo_block = Exercise(
    right=_undo,
    cases=lambda: [(block, *_after([block])) for block in _blocks(2)],
    mistakes=[
        Mistake(
            _first_things_first,
            "this undoes the steps in the order in which they were done: the last one done, y2, "
            "has to be undone first",
        ),
        Mistake(
            _old_stream,
            "x2 is right, x1 is not: the forward gave x2 to f, and this gives it y2",
        ),
        Mistake(_added, "the changes were added in the forward: what takes them away again?"),
        Mistake(
            _exchanged,
            "f and g are exchanged: look which of them made the change in y2",
        ),
        Mistake(
            lambda block, y1, y2: _undo(block, y1, y2)[::-1],
            "both streams are right, but they come back in the wrong order",
        ),
    ],
    insight="no solving for x: each half was added to one stream and computed from the other",
)
"""Lesson 07, exercise 1: `undo_block(block, y1, y2)` returns (x1, x2), by Eq. 8."""


# --------------------------------------------------------------------------------- the stack


def _undo_stack(blocks: list[ReversibleBlock], y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    for block in reversed(blocks):
        y1, y2 = _undo(block, y1, y2)
    return y1, y2


def _from_the_first(blocks: list[ReversibleBlock], y1: Tensor, y2: Tensor) -> tuple:
    return _undo_stack(blocks[::-1], y1, y2)


def _not_passed_on(blocks: list[ReversibleBlock], y1: Tensor, y2: Tensor) -> tuple:
    return _undo(blocks[0], y1, y2)


def _streams_turned(blocks: list[ReversibleBlock], y1: Tensor, y2: Tensor) -> tuple:
    for block in reversed(blocks):
        y2, y1 = _undo(block, y1, y2)
    return y1, y2


undo_stack = Exercise(
    right=_undo_stack,
    cases=lambda: [(blocks, *_after(blocks)) for blocks in (_blocks(3), _blocks(4))],
    mistakes=[
        Mistake(
            _from_the_first,
            "the first block is undone first; what you hold are the outputs of the last one",
        ),
        Mistake(
            _not_passed_on,
            "every block is given the stack's outputs, so only the last turn of the loop counts: "
            "pass on what the block before returned",
        ),
        Mistake(
            lambda blocks, y1, y2: _undo(blocks[-1], y1, y2),
            "these are the inputs of the last block: go on to the stack's",
        ),
        Mistake(
            _streams_turned,
            "the streams change places from block to block: see in which order they come back",
        ),
    ],
    insight="the inputs of every layer, from the last one's outputs alone: nothing was kept",
)
"""Lesson 07, exercise 2: `undo_stack(blocks, y1, y2)` returns the first block's (x1, x2)."""


# ------------------------------------------------------------------------------ once more


def _run_again(sublayer: nn.Module, x: Tensor, state: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        return sublayer(x)[0]


def _state_left_behind(sublayer: nn.Module, x: Tensor, state: Tensor) -> Tensor:
    torch.set_rng_state(state)
    return sublayer(x)[0]


def _state_set_too_late(sublayer: nn.Module, x: Tensor, state: Tensor) -> Tensor:
    before = torch.get_rng_state()
    change, _ = sublayer(x)
    torch.set_rng_state(before)
    return change


def _without_dropout(sublayer: nn.Module, x: Tensor, state: Tensor) -> Tensor:
    return sublayer.eval()(x)[0]


def _cases_of_dropout() -> list[tuple]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        sublayers = [FeedForwardSublayer(8, 16, dropout=rate).double() for rate in (0.5, 0.1)]
        return [(sublayer, _after([])[0], torch.get_rng_state()) for sublayer in sublayers]


run_again = Exercise(
    right=_run_again,
    cases=_cases_of_dropout,
    observe=lambda answer, *case: (answer(*case), torch.rand(2)),
    mistakes=[
        Mistake(
            lambda sublayer, x, state: sublayer(x)[0],
            "the dropout masks are new ones: the generator was not in the forward's state",
        ),
        Mistake(
            _state_left_behind,
            "the change is right, but afterwards the generator stands where the forward had it: "
            "whoever draws next gets old numbers again",
        ),
        Mistake(
            _state_set_too_late,
            "the generator is left as it was found, but the masks are not the forward's: the state "
            "must be there before the sublayer draws",
        ),
        Mistake(
            _without_dropout,
            "without dropout this is another function than the forward's: the same masks are "
            "wanted, not none",
        ),
    ],
    insight="the same masks, and nobody else notices that they were drawn again",
)
"""Lesson 07, exercise 3: `run_again(sublayer, x, state)` repeats a run with dropout.

Compared are the change, and the numbers that the global generator gives afterwards.
"""


# --------------------------------------------------------------------------------- bytes


def _checkpoints(n_layers: int, batch_size: int, length: int, d_model: int) -> int:
    config = ReformerConfig(
        vocab_size=4, d_model=d_model, n_heads=1, n_hashes=1, chunk_length=4, max_length=length
    )
    depths = (1, 1 + n_layers)
    kept = measure_memory(
        config, depths, kinds=("checkpointed",), batch_size=batch_size, repeats=0
    ).checkpointed.floats
    return int(kept[1] - kept[0])


checkpoint_bytes = Exercise(
    right=_checkpoints,
    cases=lambda: [(1, 1, 16, 8), (2, 3, 8, 4)],
    mistakes=[
        Mistake(
            lambda n_layers, batch_size, length, d_model: (
                4 * n_layers * batch_size * length * d_model
            ),
            "half of it: how many streams does a block read?",
        ),
        Mistake(
            lambda n_layers, batch_size, length, d_model: (
                2 * n_layers * batch_size * length * d_model
            ),
            "so many numbers, but how many bytes has a float32?",
        ),
        Mistake(
            lambda n_layers, batch_size, length, d_model: 8 * n_layers * length * d_model,
            "that is one sequence; a batch has several",
        ),
        Mistake(
            lambda n_layers, batch_size, length, d_model: 8 * batch_size * length * d_model,
            "that is one layer: every further one keeps its inputs as well",
        ),
        Mistake(
            lambda n_layers, batch_size, length, d_model: (
                32 * n_layers * batch_size * length * d_model
            ),
            "what is inside a layer, such as feed-forward's wide middle, is computed again and not "
            "kept: count the layer's inputs only",
        ),
    ],
    insight="and that is just what was measured: two streams a layer",
)
"""Lesson 07, exercise 4: the bytes that further layers add to what a checkpointed stack keeps."""


def _memo(n_heads: int, n_hashes: int, length: int, n_buckets: int) -> int:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"max_length": length, "n_hashes": n_hashes, "n_buckets": n_buckets}
        attention = LSHSelfAttention(8, n_heads, 8, chunk_length=4, **sizes)
        _, memo = attention(torch.rand(1, length, 8) * 2 - 1)
    return memo.numel() * memo.element_size()


def _bytes_each(n_buckets: int) -> int:
    return 1 if n_buckets <= 128 else 2


memo_bytes = Exercise(
    right=_memo,
    cases=lambda: [(2, 3, 16, 8), (1, 2, 16, 128), (1, 2, 16, 130)],
    mistakes=[
        Mistake(
            lambda n_heads, n_hashes, length, n_buckets: 8 * n_heads * n_hashes * length,
            "that is the plan's int64; the memo is in the smallest signed integers that hold "
            "the largest bucket",
        ),
        Mistake(
            lambda n_heads, n_hashes, length, n_buckets: n_heads * n_hashes * length,
            "right while a signed byte holds the largest bucket: what is the largest number in "
            "8 bits, one of them for the sign?",
        ),
        Mistake(
            lambda n_heads, n_hashes, length, n_buckets: n_heads * length * _bytes_each(n_buckets),
            "every round has its own buckets",
        ),
        Mistake(
            lambda n_heads, n_hashes, length, n_buckets: n_hashes * length * _bytes_each(n_buckets),
            "every head has its own buckets",
        ),
        Mistake(
            lambda n_heads, n_hashes, length, n_buckets: (
                n_heads * n_hashes * length * (1 if n_buckets < 128 else 2)
            ),
            "buckets are numbered from 0: the largest of 128 is 127",
        ),
    ],
    insight="this is all that LSH attention adds to what a reversible layer keeps",
)
"""Lesson 07, exercise 5: the bytes of one layer's memo, for one sequence."""

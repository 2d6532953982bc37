"""Exercises on the rest of the memory: pieces of feed-forward and loss, and positions on a grid."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from reformer_core.feed_forward import FeedForward, in_pieces
from reformer_core.positions import AxialPositions
from reformer_viz.lessons.exercise import Exercise, Mistake
from reformer_viz.measure.live_bytes import LiveBytes

Answer = Callable[..., Tensor]


def _uniform(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1


def _feed_forward(d_model: int, d_ff: int) -> nn.Module:
    """Return the function of one piece, in float64, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return FeedForward(d_model, d_ff).piece.double()


def _tokens_at_once(answer: Answer, module: nn.Module, *rest) -> tuple[Tensor, int]:
    """Return what an answer returns, and the most tokens that it gave to the module at once."""
    sizes = [0]
    with module.register_forward_pre_hook(lambda _, x: sizes.append(x[0][..., 0].numel())):
        result = answer(module, *rest)
    return result, max(sizes)


# --------------------------------------------------------------------------- feed-forward


def _in_pieces(piece: nn.Module, x: Tensor, n_chunks: int) -> Tensor:
    return torch.cat([piece(part) for part in x.chunk(n_chunks, dim=1)], dim=1)


def _rest_forgotten(piece: nn.Module, x: Tensor, n_chunks: int) -> Tensor:
    size = x.shape[1] // n_chunks
    return torch.cat([piece(x[:, i * size : (i + 1) * size]) for i in range(n_chunks)], dim=1)


def _cut_across_the_batch(piece: nn.Module, x: Tensor, n_chunks: int) -> Tensor:
    return torch.cat([piece(part) for part in x.chunk(n_chunks, dim=0)], dim=0)


feed_forward_in_pieces = Exercise(
    right=_in_pieces,
    observe=_tokens_at_once,
    cases=lambda: [
        (_feed_forward(8, 16), _uniform(2, 16, 8), 2),
        (_feed_forward(8, 16), _uniform(1, 7, 8), 3),
    ],
    mistakes=[
        Mistake(
            lambda piece, x, n_chunks: piece(x),
            "the numbers are right, but all tokens were in the function at once: nothing is saved",
        ),
        Mistake(
            _cut_across_the_batch,
            "the numbers are right, but this cuts the batch: one long sequence would stay whole",
        ),
        Mistake(
            lambda piece, x, n_chunks: torch.cat(
                [piece(part) for part in x.split(n_chunks, dim=1)], dim=1
            ),
            "the numbers are right, but `n_chunks` is how many pieces there are, not how long they "
            "are",
        ),
        Mistake(
            lambda piece, x, n_chunks: torch.cat(
                [piece(part) for part in x.chunk(n_chunks, dim=1)]
            ),
            "the pieces were cut out of the length and put together along the batch",
        ),
        Mistake(
            _rest_forgotten,
            "tokens are missing at the end: 7 tokens do not divide into 3 equal pieces",
        ),
    ],
    insight="each token by itself: where the cuts are changes nothing but the memory",
)
"""Lesson 08, exercise 1: `pieces(piece, x, n_chunks)`, Eq. 10.

Compared are the result, and how many tokens the function was given at once.
"""


# ------------------------------------------------------------------- feed-forward, in training


def _in_a_step(answer: Answer, piece: nn.Module, x: Tensor, n_chunks: int) -> tuple:
    """Return result and gradient, and whether little was kept, and little alive at any time."""
    middle = x[..., 0].numel() * piece.w_in.out_features * x.element_size()
    x = x.requires_grad_()
    with LiveBytes() as live:
        result = answer(piece, x, n_chunks)
        kept = live.floats
        if result.requires_grad:
            result.sum().backward()
    gradient = torch.zeros_like(x) if x.grad is None else x.grad
    return result.detach(), gradient, kept < middle, live.peak < 2 * middle


def _around_all(piece: nn.Module, x: Tensor, n_chunks: int) -> Tensor:
    return checkpoint(_in_pieces, piece, x, n_chunks, use_reentrant=False)


def _without_gradient(piece: nn.Module, x: Tensor, n_chunks: int) -> Tensor:
    with torch.no_grad():
        return _in_pieces(piece, x, n_chunks)


def _whole(piece: nn.Module, x: Tensor, n_chunks: int) -> Tensor:
    return checkpoint(piece, x, use_reentrant=False)


pieces_in_training = Exercise(
    right=in_pieces,
    observe=_in_a_step,
    cases=lambda: [(_feed_forward(8, 64), _uniform(1, 256, 8), 8)],
    mistakes=[
        Mistake(
            _in_pieces,
            "result and gradient are right, but autograd keeps the middle of every piece for the "
            "backward: together they are as large as the whole",
        ),
        Mistake(
            _around_all,
            "little is kept, but in the backward all pieces are computed again before the first of "
            "them is done with: checkpoint the pieces, not their sum",
        ),
        Mistake(
            _without_gradient,
            "nothing is kept, and nothing is learned: without a graph there is no gradient",
        ),
    ],
    insight="a piece's middle lives in the forward and again in the backward, never with another's",
)
"""Lesson 08, exercise 2: the same, so that it saves memory in a training step.

Compared are result, gradient, whether less than the wide middle is kept, and whether less than
two of it are ever alive.
"""


# --------------------------------------------------------------------------------- positions


def _axial(rows: Tensor, columns: Tensor, length: int) -> Tensor:
    tables = rows, columns
    positions = AxialPositions(*zip(*(table.shape for table in tables), strict=True))
    for parameter, table in zip(positions.tables, tables, strict=True):
        parameter.data = table
    return positions(length).detach()


def _places(length: int, by: int) -> tuple[Tensor, Tensor]:
    position = torch.arange(length)
    return position // by, position % by


def _down_the_columns(rows: Tensor, columns: Tensor, length: int) -> Tensor:
    column, row = _places(length, len(rows))
    return torch.cat([rows[row], columns[column]], dim=-1)


def _counted_by_rows(rows: Tensor, columns: Tensor, length: int) -> Tensor:
    row, column = _places(length, len(rows))
    return torch.cat([rows[row], columns[column]], dim=-1)


def _summed(rows: Tensor, columns: Tensor, length: int) -> Tensor:
    row, column = _places(length, len(columns))
    return rows[row] + columns[column]


def _column_first(rows: Tensor, columns: Tensor, length: int) -> Tensor:
    row, column = _places(length, len(columns))
    return torch.cat([columns[column], rows[row]], dim=-1)


axial_vectors = Exercise(
    right=_axial,
    cases=lambda: [
        (_uniform(3, 4), _uniform(5, 4, seed=1), 8),
        (_uniform(4, 2), _uniform(4, 6, seed=1), 16),
    ],
    mistakes=[
        Mistake(
            _down_the_columns,
            "this counts down the columns; positions follow each other along a row",
        ),
        Mistake(
            _counted_by_rows,
            "a row is as long as there are columns: that is what to divide by",
        ),
        Mistake(
            _summed,
            "the two vectors are put end to end, not added",
        ),
        Mistake(
            _column_first,
            "the row's vector comes first, then the column's",
        ),
        Mistake(
            lambda rows, columns, length: _axial(rows, columns, len(rows) * len(columns)),
            "that is the whole grid: return as many vectors as are asked for",
        ),
    ],
    insight="two short tables stand for one long one",
)
"""Lesson 08, exercise 3: `axial_vectors(rows, columns, length)` looks positions up."""

axial_numbers = Exercise(
    right=lambda axial_shape, axial_dims: sum(
        table.numel() for table in AxialPositions(axial_shape, axial_dims).parameters()
    ),
    cases=lambda: [((4, 4), (2, 6)), ((8, 16), (16, 48)), ((2, 3, 4), (5, 6, 7))],
    mistakes=[
        Mistake(
            lambda axial_shape, axial_dims: math.prod(axial_shape) * sum(axial_dims),
            "that is one vector for every position, what an axial table avoids",
        ),
        Mistake(
            lambda axial_shape, axial_dims: sum(axial_shape) * sum(axial_dims),
            "a row's vector is as wide as its own axis says, not as wide as d_model",
        ),
        Mistake(
            lambda axial_shape, axial_dims: axial_shape[0] * axial_dims[0],
            "that is the first table alone",
        ),
    ],
    insight="the sum of the axes instead of their product",
)
"""Lesson 08, exercise 4: how many numbers the tables of a grid hold."""


# --------------------------------------------------------------------------------- the loss


def _head() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Linear(8, 5).double()


def _loss(head: nn.Module, hidden: Tensor, targets: Tensor, n_chunks: int) -> Tensor:
    total = _sum_of_losses(head, hidden, targets, n_chunks)
    return total / targets.numel()


def _sum_of_losses(head: nn.Module, hidden: Tensor, targets: Tensor, n_chunks: int) -> Tensor:
    pieces = zip(hidden.chunk(n_chunks, dim=1), targets.chunk(n_chunks, dim=1), strict=True)
    return sum(cross_entropy(head(x).mT, wanted, reduction="sum") for x, wanted in pieces)


def _mean_of_means(head: nn.Module, hidden: Tensor, targets: Tensor, n_chunks: int) -> Tensor:
    pieces = zip(hidden.chunk(n_chunks, dim=1), targets.chunk(n_chunks, dim=1), strict=True)
    return torch.stack([cross_entropy(head(x).mT, wanted) for x, wanted in pieces]).mean()


loss_in_pieces = Exercise(
    right=_loss,
    observe=_tokens_at_once,
    cases=lambda: [(_head(), _uniform(2, 7, 8), torch.arange(14).view(2, 7) % 5, 3)],
    mistakes=[
        Mistake(
            _mean_of_means,
            "a mean of means is not the mean: the last piece is shorter, and its tokens would "
            "weigh more",
        ),
        Mistake(
            _sum_of_losses,
            "that is the sum over all tokens; the mean is asked for",
        ),
        Mistake(
            lambda head, hidden, targets, n_chunks: cross_entropy(head(hidden).mT, targets),
            "the loss is right, but the logits of all tokens existed at once",
        ),
        Mistake(
            lambda head, hidden, targets, n_chunks: _loss(
                head, hidden[:, :6], targets[:, :6], n_chunks
            ),
            "tokens at the end are left out: the pieces need not be equally long",
        ),
    ],
    insight="the logits of the whole sequence never exist",
)
"""Lesson 08, exercise 5: the mean cross-entropy, the head and the loss piece by piece.

Compared are the loss, and how many tokens the head was given at once.
"""

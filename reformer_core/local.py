"""Attention in a local window of the text: the paper's other layer."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reformer_core.bucketing import Window, check_padding, check_rule
from reformer_core.graphs import filled, n_pieces, rows_of, tracing, untiled


def local_attention(
    queries: Float[Tensor, "batch heads length d_head"],
    keys: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    *,
    chunk_length: int,
    causal: bool,
    window: Window = "chunks",
    padding: Bool[Tensor, "batch length"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads length d_value"]:
    """Attend to nearby positions: softmax(q . k / sqrt(d_head)) over a window, oneself included.

    `window="chunks"`: a position sees its own chunk and the one before, and when not causal the one
    after. `window="sliding"`: the last `chunk_length` positions, its own among them, and when not
    causal as many on the other side. Memory grows with length * chunk_length. Padding is never
    seen and gets zeros. `dropout` draws from the global generator.
    """
    check_rule(chunk_length, causal, 1, 0, window)
    batch, heads, length, _ = queries.shape
    if length == 0:
        raise ValueError("attention needs at least one position, got length 0: give a token")
    if padding is not None:
        check_padding(padding, batch, length, queries.device)
    tile = chunk_length if tracing() else min(chunk_length, length)
    tiles = n_pieces(length, tile)
    before = 1 if tracing() else min(1, tiles - 1)
    after = 0 if causal else before

    # To torch every row of heads * batch is an example, and each of its tiles a head. The tiles of
    # a single sequence are examples instead, whose heads stay where a projection left them.
    alone = batch == 1 and not tracing()

    def windows(
        sequence: Float[Tensor, "batch heads length d"], before: int, after: int
    ) -> Float[Tensor, "examples heads_of_each window d"]:
        """View a sequence as the window that each tile needs."""
        rows = sequence.transpose(1, 2).flatten(2) if alone else rows_of(sequence)
        rows = filled(rows, -before * tile, (tiles + after) * tile)
        width = before + 1 + after
        if tracing():
            return rows.unfold(1, width * tile, tile).mT
        cut = rows.unflatten(1, (tiles + width - 1, tile))
        seen = cut if width == 1 else _Windows.apply(cut, width)
        if not alone:
            return seen
        return seen[0].unflatten(-1, (heads, sequence.shape[3])).transpose(1, 2)

    visible = _visible(queries, chunk_length, causal, window, padding, tile, before, after)
    attended = scaled_dot_product_attention(
        windows(queries, 0, 0),
        windows(keys, before, after),
        windows(values, before, after),
        attn_mask=visible[0].unsqueeze(1) if alone else visible,
        dropout_p=dropout,
    )
    if alone:
        attended = untiled(attended.transpose(1, 2).flatten(2).unsqueeze(0), length)
        attended = attended.unflatten(-1, (heads, values.shape[3])).transpose(1, 2)
    else:
        attended = untiled(attended, length).unflatten(0, (heads, batch)).transpose(0, 1)
    if padding is not None:
        attended = attended.masked_fill(padding[:, None, :, None], 0)
    return attended


class _Windows(torch.autograd.Function):
    """Every tile with those after it, as a view.

    `Tensor.unfold` is the same, but its backward adds number by number instead of tile by tile.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        cut: Shaped[Tensor, "rows tiles tile width"], n_tiles: int
    ) -> Shaped[Tensor, "rows windows window width"]:
        return cut.unfold(1, n_tiles, 1).permute(0, 1, 4, 2, 3).flatten(2, 3)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, int], output: Tensor) -> None:
        _, ctx.n_tiles = inputs

    @staticmethod
    def backward(ctx, d_windows: Tensor) -> tuple[Tensor, None]:
        first, *others = d_windows.chunk(ctx.n_tiles, 2)
        d_cut = torch.cat([first, torch.zeros_like(first[:, : len(others)])], 1)
        for start, d_tiles in enumerate(others, 1):
            d_cut[:, start : start + d_tiles.shape[1]] += d_tiles
        return d_cut, None


def _visible(
    queries: Float[Tensor, "batch heads length d_head"],
    chunk_length: int,
    causal: bool,
    window: Window,
    padding: Bool[Tensor, "batch length"] | None,
    tile: int,
    before: int,
    after: int,
) -> Bool[Tensor, "rows tiles queries window"]:
    """Say which positions of its window each query may see; oneself always, also as padding."""
    batch, heads, length, _ = queries.shape
    start = torch.arange(n_pieces(length, tile), device=queries.device).view(-1, 1, 1) * tile
    of_key = torch.arange(-before * tile, (1 + after) * tile, device=queries.device)
    ahead = of_key - torch.arange(tile, device=queries.device).unsqueeze(-1)  # in every tile alike
    key, oneself = start + of_key, ahead == 0
    visible = (key >= 0) & (key < length)
    if causal:
        visible = visible & (ahead <= 0)
    if window == "sliding":
        visible = visible & (ahead.abs() < chunk_length)
    if padding is None:
        return (visible | oneself).unsqueeze(0)
    is_padding = padding[:, key.squeeze(1).clamp(0, length - 1)].unsqueeze(2)
    visible = (visible & ~is_padding) | oneself
    return visible[torch.arange(heads * batch, device=visible.device) % batch]

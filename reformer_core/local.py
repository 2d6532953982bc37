"""Attention in a local window of the text: the paper's other layer."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from reformer_core.bucketing import Window, check_rule


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
    length = queries.shape[2]
    if length == 0:
        raise ValueError("attention needs at least one position, got length 0: give a token")
    tile = min(chunk_length, length)
    tiles = -(-length // tile)
    before = min(1, tiles - 1)
    after = 0 if causal else before

    def windows(sequence: Tensor) -> Tensor:
        """View a sequence (batch, heads, length, width) as the window that each tile needs."""
        filler = tiles * tile - length
        sequence = pad(sequence, (0, 0, before * tile, after * tile + filler))
        return rearrange(
            sequence.unfold(2, (before + 1 + after) * tile, tile), "b h t d w -> (b t) h w d"
        )

    attended = scaled_dot_product_attention(
        rearrange(
            pad(queries, (0, 0, 0, tiles * tile - length)), "b h (t q) d -> (b t) h q d", t=tiles
        ),
        windows(keys),
        windows(values),
        attn_mask=_visible(queries, chunk_length, causal, window, padding, tile, before, after),
        dropout_p=dropout,
    )
    attended = rearrange(attended, "(b t) h q d -> b h (t q) d", t=tiles)[:, :, :length]
    if padding is not None:
        attended = attended.masked_fill(padding[:, None, :, None], 0)
    return attended


def _visible(
    queries: Float[Tensor, "batch heads length d_head"],
    chunk_length: int,
    causal: bool,
    window: Window,
    padding: Bool[Tensor, "batch length"] | None,
    tile: int,
    before: int,
    after: int,
) -> Bool[Tensor, "tiles one queries window"]:
    """Say which positions of its window each query may see; oneself always, also as padding."""
    batch, _, length, _ = queries.shape
    place = torch.arange(-(-length // tile) * tile, device=queries.device).view(-1, tile, 1)
    key = place[:, :1] + torch.arange(-before * tile, (1 + after) * tile, device=queries.device)
    visible = (key >= 0) & (key < length)
    if causal:
        visible = visible & (key <= place)
    if window == "sliding":
        visible = visible & ((key - place).abs() < chunk_length)
    visible = visible.expand(batch, *visible.shape)
    if padding is not None:
        is_padding = padding[:, key.squeeze(1).clamp(0, length - 1)].unsqueeze(2)
        visible = visible & ~is_padding
    return (visible | (key == place)).flatten(0, 1).unsqueeze(1)

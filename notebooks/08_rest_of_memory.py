# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What else fills the memory: feed-forward, positions, the loss?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/08_rest_of_memory.ipynb)
#
# Attention no longer costs length times length, and depth no longer keeps activations. Train a Reformer
# on a long text now, and memory runs out all the same. Three parts are left: the *wide middle* of the
# feed-forward layers, the table with one vector for every *position*, and the *logits*, a number for every
# token and every word of the vocabulary. This lesson takes each apart, and at the end counts everything
# that is alive in a training step, beside what the paper's tables count.
#
# After this lesson you can
# - cut feed-forward and loss into pieces, so that it saves memory in the backward pass as well;
# - say why the result does not depend on the cuts, and where it nearly would;
# - look up an axial position, and count the numbers that it saves;
# - name everything that is alive in a training step, and what no trick of this course makes smaller.
#
# Needs: [reversible layers](07_reversible.ipynb). Words: [glossary](../docs/glossary.md).
#
# Paper: Sec. 3, "Chunking" (Eq. 10) and Tables 1 and 3; axial positions are in the authors' code.
#
# *Runs in about 20 s on two cores.*

# %% tags=["setup"]
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "https://github.com/reformer-notebooks/reformer-notebooks"
IN_COLAB = "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ
if IN_COLAB and importlib.util.find_spec("reformer_viz") is None:
    project = f"reformer-notebooks @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", project], check=True)
if IN_COLAB:
    from google.colab import output

    output.enable_custom_widget_manager()

from reformer_viz import lessons

lessons.begin()

# %% [markdown]
# ## 1. The wide middle
#
# A feed-forward layer maps each token's vector of width `d_model` to `d_ff`, usually four times as wide, and
# back. It treats every token by itself. So the sequence may be cut into $c$ pieces, one after the other
# (Eq. 10):
#
# $$Y_2 = \left[\,Y_2^{(1)}; \ldots; Y_2^{(c)}\right]
# = \left[\,X_2^{(1)} + g(Y_1^{(1)}); \ldots; X_2^{(c)} + g(Y_1^{(c)})\right]$$
#
# Only one piece's middle then exists at a time. The result is the same; the peak is not. The counts below
# are bytes of living tensors in one forward and backward pass, exact and the same on every machine.

# %%
import torch

from reformer_core.feed_forward import FeedForward, in_pieces
from reformer_viz.measure.live_bytes import LiveBytes

torch.manual_seed(0)
piece = FeedForward(d_model=64, d_ff=256).piece
x = torch.rand(1, 1024, 64) * 2 - 1


def only_cut(piece, x, n_chunks):
    """Compute Eq. 10 as it stands."""
    return torch.cat([piece(part) for part in x.chunk(n_chunks, dim=1)], dim=1)


def step(way, n_chunks):
    """Return output, gradient, and the bytes kept and alive at most."""
    inputs = x.clone().requires_grad_()
    with LiveBytes() as live:
        output = way(piece, inputs, n_chunks)
        kept = live.floats
        output.square().sum().backward()
    return output.detach(), inputs.grad, kept, live.peak


whole = step(only_cut, 1)
for name, way in (("only cut", only_cut), ("the package's in_pieces", in_pieces)):
    print(name)
    for n_chunks in (1, 4, 16):
        output, gradient, kept, peak = step(way, n_chunks)
        same = torch.allclose(output, whole[0], atol=1e-5)
        same &= torch.allclose(gradient, whole[1], atol=1e-4)
        print(f"{n_chunks:4} pieces: {kept:>9,} B kept, {peak:>9,} B at most, same numbers: {same}")

# %% [markdown]
# The trap is in the first three lines. Cutting alone changes nothing of what autograd keeps: for the
# backward pass it holds the middle of *every* piece. `in_pieces` checkpoints each piece, so that its middle is
# computed again when its turn comes; inside a reversible stack the replay does the same, piece by piece.
# (The authors' code computes each piece again in the backward, too. The two PyTorch libraries that most people
# use cut the forward pass only: for the backward they keep what an uncut layer keeps.)
#
# One thing does depend on the cuts: dropout. Each piece draws its own masks, so the numbers differ for
# another `ff_chunks`, as they would for another seed.
#
# ## 2. A vector for every position
#
# A learned table of positions has `max_length * d_model` numbers. For the half million positions of the
# authors' longest example that alone would outweigh the model. **Axial positions** lay the sequence out as a
# grid, and give a vector to every row and one to every column; a position's vector is the two *put end to
# end*:
#
# $$p = r \cdot n_{\text{columns}} + c \quad\Rightarrow\quad
# \text{vector}(p) = \left[\,\text{row}_r;\; \text{column}_c\,\right]$$

# %%
from reformer_core.positions import AxialPositions, LearnedPositions

axial = AxialPositions(axial_shape=(4, 4), axial_dims=(3, 5))
vectors = axial(16)
row, column = 9 // 4, 9 % 4  # where position 9 stands, counting along the rows
by_hand = torch.cat([axial.tables[0][row], axial.tables[1][column]])
print("position 9 is its row's vector and then its column's:", torch.equal(vectors[9], by_hand))
print("all 16 differ:", len({tuple(vector.tolist()) for vector in vectors}) == 16)

for length, shape, dims in ((1024, (32, 32), (64, 192)), (2**19, (512, 1024), (64, 192))):
    one_each = length * sum(dims)  # what LearnedPositions(length, 256) would hold
    on_grid = sum(table.numel() for table in AxialPositions(shape, dims).parameters())
    print(f"{length:>7,} positions: {one_each:>11,} numbers, on a grid {on_grid:>7,}")

small = LearnedPositions(1024, 256)
assert sum(table.numel() for table in small.parameters()) == 1024 * 256

# %% [markdown]
# What is the price? Neighbours in a row share their row's vector, and two places below each other share
# the column's. The table can no longer give *any* vectors. Whatever matrix reads
# $[\text{row};\, \text{column}]$, the result is a part for the row plus a part for the column. To be exact across
# row ends, a shift then needs all positions on one straight line, where neighbours are hardly told apart
# ([lesson 09](09_train_duplicate.ipynb)).
#
# Here are the course's sixteen tokens on the grid, and below it how alike (cosine) any two of the sixteen positions
# are: in the same row, in the same column, or in neither.

# %%
from reformer_viz.lessons import WORDS

for row in range(4):
    print(" ".join(f"{word:>4}" for word in WORDS[4 * row : 4 * row + 4]))

# %%
from reformer_viz.style import SEQUENTIAL, dress, new_figure

unit = torch.nn.functional.normalize(vectors.detach(), dim=-1)
figure = new_figure(4.6, 3.8)
axes = figure.subplots()
image = axes.imshow(unit @ unit.T, cmap=SEQUENTIAL)
figure.colorbar(image, ax=axes, label="cosine of two positions' vectors")
dress(axes, "Sixteen axial positions", "position", "position")
axes.set_xticks(range(16), WORDS, rotation=90)
axes.set_yticks(range(16), WORDS)
figure

# %% [markdown]
# ## 3. The logits
#
# The last layer gives every token a score for every word. Like feed-forward it treats tokens one by one,
# so head and loss can be computed in pieces as well, and the logits of the whole text never exist:
# `loss_chunks`. For bytes this saves little; for a vocabulary of tens of thousands it is the largest
# tensor of the model.

# %%
from reformer_core import ReformerConfig, ReformerLM


def loss_and_peak(loss_chunks):
    torch.manual_seed(0)
    config = ReformerConfig(
        vocab_size=8192, d_model=32, n_layers=1, n_heads=2, chunk_length=32, max_length=256,
        loss_chunks=loss_chunks,
    )  # fmt: skip
    model = ReformerLM(config)
    with LiveBytes() as live:
        loss = model.loss(torch.arange(256)[None])
        loss.backward()
    return loss.item(), live.peak


for loss_chunks in (1, 8):
    loss, peak = loss_and_peak(loss_chunks)
    print(f"{loss_chunks} pieces: loss {loss:.2f}, at most {peak / 2**20:.1f} MiB alive")

# %% [markdown]
# ## 4. All of it, against the length
#
# Now a whole model, with wide feed-forward layers. In *reversible, chunked* both feed-forward and loss
# are cut.
#
# > **Predict, then move.** Do the four peaks grow in proportion to the length, or faster, or slower? Which of
# > them lie on top of each other, and at which end? Then measure a text twice as long as well.

# %%
from reformer_viz import explore_memory

small = ReformerConfig(
    vocab_size=256, d_model=64, n_layers=4, n_heads=4, d_ff=2048, chunk_length=32, max_length=512
)
curves = explore_memory(small, show="lengths", n_layers=2, length=256)
curves

# %%
curves.controls["length"].value = 512
print(curves)

# %%
lengths = curves.data.values.tolist()
peaks = {name: step.peak for name, step in curves.data.steps.items()}
ends = f"{lengths[0]} to {lengths[1]} tokens", f"{lengths[-2]} to {lengths[-1]} tokens"
print(f"the peak grows {'':8} from {ends[0]}   from {ends[1]}")
for name, peak in peaks.items():
    print(f"  {name:<25}{peak[1] / peak[0]:8.2f} times {peak[-1] / peak[-2]:19.2f} times")
nearly = abs(peaks["checkpointed"] / peaks["reversible"] - 1).max()
print(f"checkpointed and reversible differ by {nearly:.0%} at most")
print(f"highest at {lengths[0]} tokens:", max(peaks, key=lambda name: peaks[name][0]))

# %% [markdown]
# *What you see:* nothing grows faster than the length. At the long end *standard* all but doubles with it, the
# others less: their parameters and gradients, which no text makes larger, are still a good part. Checkpointed
# and reversible lie on top of each other everywhere, and at the short end *standard* lies there too. At the short end
# chunking *costs* memory: in the backward pass each piece of feed-forward gives a gradient of both wide
# matrices, which lies beside the sum of those before it until it is added. That is as large for a short text as for
# a long one, so cutting pays only where a piece's middle is larger than the matrices.

# %% [markdown]
# ## 5. What the paper counts
#
# Table 1 of the paper gives the memory of attention, Table 3 that of a whole model, as terms: so many
# numbers for so much batch ($b$), length ($l$), width, layers. Such a term counts *one* tensor where a real
# step holds many. So do not compare heights, compare slopes: on these axes a power of the length is a
# straight line, and proportion to the length has slope one.

# %%
from dataclasses import replace

import numpy as np

from reformer_viz import measure_memory, plot_memory_of_paper

lengths = (64, 128, 256, 512)
memory = measure_memory(small, lengths=lengths, repeats=0)
print(memory.describe_paper())
plot_memory_of_paper(memory)

# %%
narrow = measure_memory(replace(small, d_ff=64), lengths=lengths, repeats=0)
doublings = len(lengths) - 1
for name, step in memory.steps.items():
    slope = np.log2(step.activations[-1] / step.activations[0]) / doublings
    print(f"{name:<15}slope {slope:.2f} from end to end")
same = memory.chunked.activations == narrow.chunked.activations
as_narrow = [length for length, is_same in zip(lengths, same, strict=True) if is_same]
print("chunked, as much alive as with a middle of 64 in place of 2,048: at", as_narrow, "tokens")

# %% [markdown]
# *What you see:* without pieces the measured activations run beside the paper's dashed lines, with a slope of
# about one: the terms are right about growth. The chunked curve does not run beside its line. At the left end stands the
# gradient of one piece, as in section 4. At the other lengths the wide middle no longer counts at all: the most
# is alive inside attention, in its four rounds, and no cut of feed-forward touches that. Table 3 counts neither.
#
# And what did none of it make smaller? Below are the parts that remain in the *smallest* of the four ways,
# at the longest text. Parameters come three times more: as gradients, and twice in AdamW's memory. For a
# large model on a short text that is nearly all. Axial positions and shared query-keys make it somewhat smaller; the
# paper (Sec. 3) proposes to keep the parameters of layers at rest in the CPU's memory, which this package leaves
# to others.

# %%
step_memory = memory.steps["chunked"]
parts = {
    "activations, at most": step_memory.activations[-1],
    "buckets, random states": step_memory.integers[-1],
    "parameters": memory.parameters[-1],
    "their gradients": memory.parameters[-1],
    "AdamW's memory": memory.optimizer[-1],
}
for name, size in parts.items():
    print(f"{name:<23} {size:>10,} B")

# %% [markdown]
# ## What surprised us
#
# - **A "chunk size" that is a count.** In one library `chunk_size_feed_forward` is how *long* a piece is, in
#   the other the argument is how *many* there are; a value that is right in one is wrong in the other. Here
#   `ff_chunks` and `loss_chunks` count pieces.
# - **Added, not put end to end.** One library's axial positions are full-width tables that are *summed*,
#   unless an option says otherwise. That is another model, with more parameters. And in another's
#   documentation row and column are exchanged; its code counts along the rows, as here.
# - **Exactly full, or an error.** There, training text had to fill the grid to the last position: a grid
#   of 512 x 1024 needed half a million tokens, mostly padding. Here any length up to the product works.
# - **Tying the head.** With two streams the head reads `2 * d_model` numbers, so it cannot share the
#   embedding's weights as they are; one library fails there in its fourth version, and in its fifth silently
#   does not share.
#
# ## Exercises
#
# ### 1. Feed-forward in pieces
#
# *Difficulty ●○○○○, importance ●●●●○, about 5 minutes.*
#
# Write `pieces(piece, x, n_chunks)`: apply the function `piece` to `x`, "batch length d_model", in `n_chunks`
# pieces along the length, one after the other. The length need not divide.
#
# <details><summary>Hint 1</summary>
#
# `x.chunk(n, dim=...)` cuts, `torch.cat(list, dim=...)` puts together.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Which of the three axes is the length?
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import rest_of_memory as check


def pieces(piece, x, n_chunks):
    """Return piece(x), computed in pieces along the length."""
    raise NotImplementedError


check.feed_forward_in_pieces(pieces)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def pieces(piece, x, n_chunks):
#     return torch.cat([piece(part) for part in x.chunk(n_chunks, dim=1)], dim=1)
# ```
#
# Under `torch.no_grad()` this is all that is needed. In training it saves nothing yet.
#
# </details>

# %% [markdown]
# ### 2. The same in training
#
# *Difficulty ●●●○○, importance ●●●●○, about 15 minutes.*
#
# Write `pieces_in_training(piece, x, n_chunks)`, so that neither the forward nor the backward pass ever has
# more than one piece's wide middle.
#
# <details><summary>Hint 1</summary>
#
# `from torch.utils.checkpoint import checkpoint`; then `checkpoint(function, x, use_reentrant=False)` keeps
# `x` alone and computes the inside again when the backward pass arrives there.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# What is computed again at once must be one piece.
#
# </details>


# %% tags=["exercise"]
def pieces_in_training(piece, x, n_chunks):
    """Return piece(x), with one piece's middle alive at a time, forward and backward."""
    raise NotImplementedError


check.pieces_in_training(pieces_in_training)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from torch.utils.checkpoint import checkpoint
#
#
# def pieces_in_training(piece, x, n_chunks):
#     parts = x.chunk(n_chunks, dim=1)
#     return torch.cat([checkpoint(piece, part, use_reentrant=False) for part in parts], dim=1)
# ```
#
# A checkpoint around the whole loop would keep little too, but its backward would compute all pieces
# again before it needed the first.
#
# </details>

# %% [markdown]
# ### 3. Look up axial positions
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Write `axial_vectors(rows, columns, length)`: the vectors of the first `length` positions, given a table of
# row vectors and one of column vectors.
#
# <details><summary>Hint 1</summary>
#
# How long is a row of the grid?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `//` gives the row, `%` the column; index each table with a whole tensor of numbers.
#
# </details>


# %% tags=["exercise"]
def axial_vectors(rows, columns, length):
    """Return the vectors of positions 0 to length - 1."""
    raise NotImplementedError


check.axial_vectors(axial_vectors)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def axial_vectors(rows, columns, length):
#     position = torch.arange(length)
#     row, column = position // len(columns), position % len(columns)
#     return torch.cat([rows[row], columns[column]], dim=-1)
# ```
#
# A row is as long as there are columns, and that is what to divide by.
#
# </details>

# %% [markdown]
# ### 4. Count their numbers
#
# *Difficulty ●○○○○, importance ●●○○○, about 5 minutes.*
#
# Write `axial_numbers(axial_shape, axial_dims)`: how many numbers do the tables hold, for any number of
# axes?
#
# <details><summary>Hint 1</summary>
#
# Each axis has its own table.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# As many vectors as the axis is long, each as wide as the axis' share of `d_model`.
#
# </details>


# %% tags=["exercise"]
def axial_numbers(axial_shape, axial_dims):
    """Return how many numbers the tables hold."""
    raise NotImplementedError


check.axial_numbers(axial_numbers)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def axial_numbers(axial_shape, axial_dims):
#     return sum(size * width for size, width in zip(axial_shape, axial_dims))
# ```
#
# </details>

# %% [markdown]
# ### 5. The loss in pieces
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Write `loss_in_pieces(head, hidden, targets, n_chunks)`: the mean cross-entropy over all tokens, without
# ever having all logits. `hidden` is "batch length d", `targets` "batch length".
#
# <details><summary>Hint 1</summary>
#
# The last piece may be shorter: a mean of the pieces' means would count its tokens for more.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `cross_entropy(logits, targets, reduction="sum")` from `torch.nn.functional` wants the classes on axis 1:
# `logits.mT`.
#
# </details>


# %% tags=["exercise"]
def loss_in_pieces(head, hidden, targets, n_chunks):
    """Return the mean cross-entropy of head(hidden), computed in pieces along the length."""
    raise NotImplementedError


check.loss_in_pieces(loss_in_pieces)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from torch.nn.functional import cross_entropy
#
#
# def loss_in_pieces(head, hidden, targets, n_chunks):
#     total = 0
#     for x, wanted in zip(hidden.chunk(n_chunks, dim=1), targets.chunk(n_chunks, dim=1)):
#         total = total + cross_entropy(head(x).mT, wanted, reduction="sum")
#     return total / targets.numel()
# ```
#
# Sums add up, means do not.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>Why may feed-forward be cut along the length, and attention not so simply?</summary>
#
# Feed-forward treats every token by itself. In attention a token needs others, perhaps of another piece.
#
# </details>
#
# <details><summary>Why does cutting alone save nothing in training?</summary>
#
# Autograd keeps each piece's middle for the backward pass, and together they are the whole.
#
# </details>
#
# <details><summary>What does depend on the number of pieces?</summary>
#
# Memory, and with dropout the masks, since each piece draws its own.
#
# </details>
#
# <details><summary>Are an axial position's two vectors added or put end to end?</summary>
#
# Put end to end: their widths add up to `d_model`.
#
# </details>
#
# <details><summary>Which positions share half of their vector?</summary>
#
# Those in one row share the row's part, those in one column the column's.
#
# </details>
#
# <details><summary>When are the logits the largest tensor?</summary>
#
# When the vocabulary is larger than all other widths, that is for words rather than bytes.
#
# </details>
#
# <details><summary>What remains, whatever one cuts?</summary>
#
# Parameters, their gradients and the optimiser's memory; the two streams; buckets and random states.
#
# </details>
#
# ## Next
#
# All parts are there. [Can it learn to copy, and what does a miss cost?](09_train_duplicate.ipynb) Further
# reading: Sec. 3 of the paper and the rows of its Table 3; axial positions come from Ho and others,
# *Axial Attention in Multidimensional Transformers* (2019).

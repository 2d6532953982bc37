# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training without remembering: reversible layers, or gradient checkpointing?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/07_reversible.ipynb)
#
# To train, a network first runs forward, and then backward, from the last layer to the first. The
# backward pass needs what every layer was given, so an ordinary network keeps all of it until then:
# memory grows with depth. There are two ways not to keep it. **Checkpointing** keeps only the inputs
# of each layer and computes the inside anew. A **reversible layer** keeps not even those: its inputs
# can be computed from its outputs. Which one is better? This lesson builds the second, proves it
# exact, and then measures both.
#
# After this lesson you can
# - invert a reversible layer, and a stack of them, by hand;
# - say what a layer must not choose anew when it runs a second time, and show what happens if it does;
# - read the bytes of a training step, operation by operation, in four ways of remembering;
# - decide by numbers between reversing and checkpointing;
# - name a mistake in an LSH attention from its picture and its gradient.
#
# Needs: [from buckets to attention](03_buckets_to_attention.ipynb); for section 7 also [how many
# rounds](04_how_many_rounds.ipynb) and [does it peek?](05_does_it_peek.ipynb). Words: [glossary](../docs/glossary.md).
#
# Paper: Sec. 3, "Reversible Transformer" (Eq. 7-9).
#
# *Runs in about 30 s on two cores.*

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
# ## 1. A layer that can be undone
#
# An ordinary residual layer computes $y = x + f(x)$. From $y$ alone one cannot get $x$ back: one would
# have to know $f(x)$ first. The trick (Eq. 7) is to have two **streams**, $x_1$ and $x_2$, and to change
# one at a time, by a function of the *other*:
#
# $$y_1 = x_1 + f(x_2), \qquad y_2 = x_2 + g(y_1)$$
#
# Whatever was added was computed from something that is still there. So it can be computed again and
# taken away (Eq. 8), the last change first:
#
# $$x_2 = y_2 - g(y_1), \qquad x_1 = y_1 - f(x_2)$$
#
# $f$ and $g$ may be any functions, and need no inverse. In the Reformer $f$ is attention and $g$ the
# feed-forward layer (Eq. 9), each with its layer norm inside. Here is one of the package's blocks on the
# sixteen tokens, undone in two lines:

# %%
import torch

from reformer_core.layers import AttentionSublayer, Context, FeedForwardSublayer, LSHSelfAttention
from reformer_core.reversible import ReversibleBlock
from reformer_viz.lessons import sixteen_tokens

torch.manual_seed(0)
attention = LSHSelfAttention(8, 1, 8, max_length=16, n_hashes=2, n_buckets=4, chunk_length=4)
block = ReversibleBlock(AttentionSublayer(8, attention), FeedForwardSublayer(8, 32))
block = block.double().eval()

x1 = sixteen_tokens()[0].double()
x2 = x1.flip(1)
with torch.no_grad():
    y1, y2 = block(x1, x2)
    x2_again = y2 - block.g(y1)[0]  # a sublayer returns its change, and a memo
    x1_again = y1 - block.f(x2_again)[0]

worst = max((x1_again - x1).abs().max(), (x2_again - x2).abs().max())
print("the inputs come back within 1e-14:", bool(worst < 1e-14))
print("the streams did change:", bool((y1 - x1).abs().max() > 0.1))

# %% [markdown]
# ## 2. The backward pass needs no activations
#
# A stack of such layers keeps the outputs of the *last* one. Going backward it undoes a layer, which
# gives that layer's inputs; runs it once more on them, this time recording for the gradients; and goes
# on to the layer before. Every layer so runs twice forward, and only one layer's activations are ever
# alive.
#
# Is it still the same function, with the same gradients? The package's model does both; `reversible`
# only chooses how to remember.

# %%
from dataclasses import replace

from reformer_core import ReformerConfig, ReformerLM

config = ReformerConfig(
    vocab_size=256, d_model=64, n_layers=4, n_heads=4, chunk_length=32, max_length=256
)
tokens = torch.arange(256)[None] % 256


def gradients_of(config):
    torch.manual_seed(0)
    model = ReformerLM(config).double()
    loss = model.loss(tokens)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


loss, gradients = gradients_of(config)
other_loss, others = gradients_of(replace(config, reversible=False))
agree = all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients, others, strict=True))
print("the same loss:", torch.equal(loss, other_loss))
print(f"all {len(gradients)} gradients agree within 1e-12:", agree)

# %% [markdown]
# ## 3. The second run must be the first one
#
# Two things in a layer are chosen at random: the rotations that LSH attention hashes with, and the
# masks of dropout. If the second run chose anew, it would be another function. Then the inputs that it
# takes away are not those that were added, and every layer before it gets wrong ones.
#
# So the stack keeps a **memo** from the first run, the buckets, in the smallest integers that hold them,
# and the state of the random generator. What happens without it? Below the change $f(x_2)$, which undoing
# must take away again, is computed a second time, with the kept buckets and with fresh ones.

# %%
with torch.no_grad():
    change, memo = block.f(x2)
    again, _ = block.f(x2, memo=memo)
    block.train()  # in training, every step has rotations of its own
    fresh, _ = block.f(x2, Context(step=1))
    block.eval()

print("memo:", tuple(memo.shape), memo.dtype)
print("with the memo, the change is the same:", torch.equal(change, again))
off = float((change - fresh).norm() / change.norm())
print(f"with fresh buckets it is off by {off:.0%} of its length")

# %% [markdown]
# The gradient suffers in the same way, and in a deep stack wrong inputs are handed on to every layer before.
# Nothing raises an error. The authors' code keeps the buckets "for training stability", and another library
# added it after its users had reported instability. (The bug switchboard at the end of this lesson has it as
# one of its switches.)
#
# ## 4. What is alive, operation by operation
#
# Now measure. Below, one training step of the same model runs in four ways; after every single operation
# the bytes of all living tensors are counted. *Standard* keeps everything. *Checkpointed* keeps each
# layer's inputs (`torch.utils.checkpoint`). *Reversible* keeps outputs, memos and random states. The
# last one also cuts feed-forward and loss into pieces, which is [the next lesson](08_rest_of_memory.ipynb).
#
# > **Predict, then move.** The curve of *standard* climbs through the forward pass and falls through the
# > backward. What will *checkpointed* do in the backward pass? And *reversible* in the forward pass? Then
# > double the layers: which of the curves' peaks grow?

# %%
from reformer_viz import explore_memory

film = explore_memory(n_layers=4, length=256)
film

# %%
four = film.data
film.controls["n_layers"].value = 8
print(film)

# %%
grads = (film.data.films[0].parameters - four.films[0].parameters) / 2**20
print(f"four layers more have gradients of {grads:.2f} MiB")
for fewer, more in zip(four.films, film.data.films, strict=True):
    kept, peak = (more.kept - fewer.kept) / 2**20, (more.peak - fewer.peak) / 2**20
    print(f"{more.kind:<13} keeps {kept:5.2f} MiB more, and peaks {peak:5.2f} MiB higher")

# %% [markdown]
# *What you see:* in the backward pass *checkpointed* makes a saw: each layer's inside is built anew and gone
# again when its gradients are there. *Reversible* adds nearly nothing in the forward pass from layer to layer: what it keeps for a
# layer is a memo and a random state. All four peaks grow with the layers, but three of them by hardly more than the
# gradients of the new layers, which every way of remembering has to hold; only *standard* grows by their activations.

# %% [markdown]
# ## 5. Against depth: who wins?
#
# The two numbers that matter are what waits between forward and backward (*kept*), and the most that is
# alive at any moment (the *peak*), which decides whether the step fits.

# %%
from reformer_viz import measure_memory, plot_memory

memory = measure_memory(replace(config, max_length=512), depths=(1, 2, 4, 8, 16, 32), repeats=0)
print(memory.describe())
plot_memory(memory)

# %% [markdown]
# Read it twice. *Kept* is flat for reversible layers, but for memos: that is the paper's promise, and it
# holds. The peak tells another story, since it includes what one layer needs while it runs again, and the
# gradients, which grow with depth in every way of remembering. Where does checkpointing stay below, and from which depth on does reversing?

# %%
depths = memory.values
lower = depths[memory.checkpointed.peak < memory.reversible.peak]
kept = memory.checkpointed.kept / memory.reversible.kept
print("of depths", depths.tolist(), "checkpointing has the lower peak at", lower.tolist())
print(
    f"what it keeps, over what reversing keeps: {kept[0]:.1f} times at {depths[0]} layer, ", end=""
)
print(f"{kept[-1]:.1f} times at {depths[-1]} layers")

# %% [markdown]
# So, honestly: for a moderate depth **checkpointing is often enough**. It works for any layer, needs no
# second stream and repeats the forward exactly. Reversible layers win where what is kept fills the
# memory: very deep, very long, large batches. Both pay with about one more forward pass.
#
# Read the crossing with care. All four are the same model of two streams, at one small size; an ordinary
# Transformer has one stream, and its checkpoints would be half as large. The time is a count of passes, not
# measured here. And whether two streams learn as well as one is another question: the paper's Figure 3
# (right) says yes, a reproduction of 2021 found the reversible model somewhat worse.
#
# ## 6. Nothing is quite exact
#
# Every sum and every difference is rounded to the digits of its number format. In float64 the inputs came back within $10^{-14}$; training uses fewer
# digits. How far off is a stream after it was computed back through many layers, and does it matter to
# the gradients?

# %%
from reformer_viz import measure_reconstruction, plot_reconstruction

error = measure_reconstruction(replace(config, n_layers=12))
streams = {kind: off[-1] for kind, off in error.errors.items()}  # computed back through every layer
for what, off in (("streams", streams), ("gradients", error.gradients)):
    closer = bool(2 * off["autocast"] < off["bfloat16"])
    print(f"{what}: autocast at least twice as close as bfloat16: {closer}")
    print(f"{what}: in float32 off by less than a millionth: {bool(off['float32'] < 1e-6)}")

# %% tags=["nbval-ignore-output"]
print(error.describe())
plot_reconstruction(error)

# %% [markdown]
# *What you see:* in float32 nothing that training would notice. In bfloat16 the streams themselves are
# rounded at every addition, and the error grows from layer to layer. With products in bfloat16 and streams in
# float32 (what PyTorch calls *autocast*) only the products are rounded: the streams come back almost exactly, until a product is rounded the other way the second
# time (the step in its curve), and stay closer. So leave the streams in float32, and look
# at such a picture of your own model before you trust either.
#
# ## 7. Which bug is on?
#
# You know by now every part that an implementation can get wrong. Here are seven mistakes that are easily made,
# several of them in published code, as switches, on the sixteen tokens. One thing is not as in the lessons before:
# a token looks at its whole window, *across* buckets, as the authors' later configurations do, because there every
# mistake shows. Left, where each position is sorted to; in
# the middle, who sees whom, beside how it should be; right, how far the output is from the right one, and
# the gradient from that of the output.
#
# > **Predict, then move.** Switch on *fresh hashes in the backward*: what changes in the picture? And for
# > *repeats counted*, what happens to the error with a single round? Then choose a mystery under *bug*, and your
# > answer under *guess*: the sentence says whether it is right.

# %%
from reformer_viz import explore_bugs

switchboard = explore_bugs(sixteen_tokens()[0, 0])
switchboard

# %%
for bug in ("fresh_hashes", "repeats"):
    switchboard.controls["bug"].value = bug
    print(switchboard, end="\n\n")
switchboard.controls["n_hashes"].value = 1
print(switchboard)

# %% [markdown]
# *What you see:* with fresh hashes in the backward the picture is right, the output too, and only the gradient is off:
# no picture of a forward pass can show it. Counted repeats leave the picture right as well and change the output; with a
# single round no pair repeats, and the error is gone.

# %% [markdown]
# ## What surprised us
#
# - **"Reversible" code that keeps everything.** Chunked feed-forward saves memory in the forward pass of
#   the two PyTorch libraries that most people use; their backward pass then builds the whole wide middle at once. What
#   is not saved in the backward is not saved. Here every piece runs forward and backward in turn.
# - **A setting that reads backwards.** A user reported that reversible layers use nearly three times the
#   memory. In that library they are switched on *above* a length, which the user had set to twice theirs: most
#   likely they were never on.
# - **Half precision comes back coarser.** In plain bfloat16 the streams come back with an error some orders of
#   magnitude above float32's, and it grows with depth; measure before you trust (section 6).
# - **Hooks, DDP, `autograd.grad`.** A backward pass that calls `.backward()` inside itself bypasses them. In
#   this package the stack is one operation whose parameters are inputs, and gradients are returned.
#
# ## Exercises
#
# ### 1. Undo a block
#
# *Difficulty ●●○○○, importance ●●●●●, about 10 minutes.*
#
# Write `undo_block(block, y1, y2)`, which returns `(x1, x2)`. `block.f(x)` and `block.g(x)` return a pair:
# the change, and a memo that you may ignore here.
#
# <details><summary>Hint 1</summary>
#
# What was done last? It can be undone first, because what it was computed from is still there.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `y2` was made from `y1`. Only when you have `x2` can you compute what was added to `x1`.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import reversible as check


def undo_block(block, y1, y2):
    """Return the block's inputs (x1, x2)."""
    raise NotImplementedError


check.undo_block(undo_block)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def undo_block(block, y1, y2):
#     x2 = y2 - block.g(y1)[0]
#     x1 = y1 - block.f(x2)[0]
#     return x1, x2
# ```
#
# The last change is taken away first. No equation is solved: everything that a change was computed from
# is at hand when it is taken away.
#
# </details>

# %% [markdown]
# ### 2. Undo a stack
#
# *Difficulty ●●○○○, importance ●●●●○, about 10 minutes.*
#
# Write `undo_stack(blocks, y1, y2)`: from the outputs of the last block to the inputs of the first.
#
# <details><summary>Hint 1</summary>
#
# Which block made `y1` and `y2`?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The inputs of one block are the outputs of the one before it.
#
# </details>


# %% tags=["exercise"]
def undo_stack(blocks, y1, y2):
    """Return the first block's inputs (x1, x2)."""
    raise NotImplementedError


check.undo_stack(undo_stack)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def undo_stack(blocks, y1, y2):
#     for block in reversed(blocks):
#         y2 = y2 - block.g(y1)[0]
#         y1 = y1 - block.f(y2)[0]
#     return y1, y2
# ```
#
# After each turn of the loop the two variables hold the inputs of that block, which are the outputs of
# the block before.
#
# </details>

# %% [markdown]
# ### 3. Repeat a run with dropout
#
# *Difficulty ●●●○○, importance ●●●○○, about 15 minutes.*
#
# A sublayer with dropout ran when the global generator was in the state `state`. Write
# `run_again(sublayer, x, state)`, which returns the same change, and leaves the generator as it found it:
# the training loop must not draw the same numbers twice.
#
# <details><summary>Hint 1</summary>
#
# `torch.get_rng_state()` and `torch.set_rng_state(state)`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.random.fork_rng(devices=[])` is a context after which the generator is as before it.
#
# </details>


# %% tags=["exercise"]
def run_again(sublayer, x, state):
    """Return the change that the sublayer gave when it ran in this state."""
    raise NotImplementedError


check.run_again(run_again)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def run_again(sublayer, x, state):
#     with torch.random.fork_rng(devices=[]):
#         torch.set_rng_state(state)
#         change, _ = sublayer(x)
#     return change
# ```
#
# The state is five thousand bytes, once per layer, however long the text is; the masks would be as large
# as the activations.
#
# </details>

# %% [markdown]
# ### 4. What does checkpointing keep?
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Write `checkpoint_bytes(n_layers, batch_size, length, d_model)`: how many bytes of float32 do `n_layers`
# further layers of this model add to what a checkpointed stack keeps for the backward pass? The check
# measures it.
#
# <details><summary>Hint 1</summary>
#
# Kept are a layer's inputs, and nothing from inside.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Also here a layer has two streams.
#
# </details>


# %% tags=["exercise"]
def checkpoint_bytes(n_layers, batch_size, length, d_model):
    """Return the bytes that further layers add to what is kept."""
    raise NotImplementedError


check.checkpoint_bytes(checkpoint_bytes)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def checkpoint_bytes(n_layers, batch_size, length, d_model):
#     streams, bytes_each = 2, 4
#     return streams * bytes_each * n_layers * batch_size * length * d_model
# ```
#
# A reversible stack adds none of it, only the memo of the next exercise.
#
# </details>

# %% [markdown]
# ### 5. What does a reversible layer keep?
#
# *Difficulty ●●●○○, importance ●●○○○, about 10 minutes.*
#
# Write `memo_bytes(n_heads, n_hashes, length, n_buckets)`: the bytes of one LSH layer's memo for one
# sequence. Buckets are kept in the smallest *signed* integers that hold them.
#
# <details><summary>Hint 1</summary>
#
# One bucket for every head, round and position.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Buckets are numbered from 0, and a signed byte reaches 127.
#
# </details>


# %% tags=["exercise"]
def memo_bytes(n_heads, n_hashes, length, n_buckets):
    """Return the bytes of one layer's memo."""
    raise NotImplementedError


check.memo_bytes(memo_bytes)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def memo_bytes(n_heads, n_hashes, length, n_buckets):
#     bytes_each = 1 if n_buckets <= 128 else 2
#     return n_heads * n_hashes * length * bytes_each
# ```
#
# That is why "flat" is not quite flat: this grows with every LSH layer. It is small beside a stream.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>Why can an ordinary residual layer not be undone like this?</summary>
#
# What it added was computed from the input, which is gone. With two streams it was computed from the
# stream that did not change.
#
# </details>
#
# <details><summary>Must f and g be invertible?</summary>
#
# No. They are only ever run forward; their changes are taken away again.
#
# </details>
#
# <details><summary>What does a reversible stack keep between forward and backward?</summary>
#
# The outputs of the last layer, and for every sublayer its memo (the buckets) and, if it drew random
# numbers, the generator's state.
#
# </details>
#
# <details><summary>Why must the backward pass not hash again?</summary>
#
# In training every forward draws new rotations. Other buckets are another function: wrong inputs for
# all layers before, and a gradient of something that was never computed.
#
# </details>
#
# <details><summary>What does it cost in time?</summary>
#
# About one more forward pass, the same as checkpointing every layer.
#
# </details>
#
# <details><summary>Which layer need not run again?</summary>
#
# The last: the backward pass begins with it, just after it ran. `ReformerConfig(kept_layers=1)` keeps
# what its backward needs, and with feed-forward in one piece the peak hardly moves, as every other
# layer's replay needs as much. What it saves in time stands in the table of training steps in the
# project's README. The pictures above keep no layer.
#
# </details>
#
# <details><summary>When would you choose checkpointing instead?</summary>
#
# When the peak decides and the depth is moderate, when layers have no second stream, or when the
# streams have to be in half precision.
#
# </details>
#
# <details><summary>What still grows with depth in both?</summary>
#
# Parameters, their gradients and the optimiser's memory of them; and for LSH layers the memos.
#
# </details>
#
# ## Next
#
# [What else fills the memory?](08_rest_of_memory.ipynb) Feed-forward's wide middle, the table of
# positions, and the loss. Further reading: Sec. 3 of the paper, and Gomez and others, *The Reversible
# Residual Network* (2017), which the idea comes from.

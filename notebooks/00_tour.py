# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of the Reformer: what does it change, and does it still learn?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/00_tour.ipynb)
#
# A Transformer lets every token look at every other one, and keeps every layer's activations until
# the backward pass. The first costs `length²`, the second `depth`. The **Reformer** (Kitaev, Kaiser
# and Levskaya, ICLR 2020) removes both factors: *hashing* finds, for each token, the few others
# worth looking at, and *reversible layers* compute activations again instead of keeping them.
#
# After this tour you can
# - say what a bucket, a chunk and a round are, and find in a picture whom a token may look at;
# - check that fast LSH attention is exact attention over the pairs its plan shows;
# - train a Reformer from this notebook, on a laptop without a GPU, and train one further on another text;
# - read off what reversible layers save, and what they do not.
#
# You need to know what attention is. Run everything with *Run → Run All Cells*: the first picture
# moves within seconds, the two trainings take less than a minute each. VS Code is expected to work; it was
# not tested.
#
# *Runs in about 50 s on two cores.*

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
# ## 1. Hashing: who is worth looking at?
#
# Softmax attention is dominated by the keys that point where the query points. So the Reformer asks
# of every vector only *which way it points*: it draws random directions $R$ and numbers the one that
# the vector follows most, backwards counting too (Sec. 2 of the paper):
#
# $$h(x) = \operatorname{argmax}\,[\,xR;\,-xR\,]$$
#
# Vectors with the same number share a **bucket**. The tokens are then sorted by bucket and cut into
# **chunks** of equal length, and a token looks only at its bucket-mates in its own chunk and the one
# before, which together are its **window**. A near neighbour can end up in another bucket by bad luck, so this is done in several
# independent **rounds**, and a token sees whoever any of them shows.
#
# The picture's text is made up: a word of random letters, said twice. Every letter is a random direction,
# and a token's vector is its letter's direction plus some *noise*.
#
# Point at a token, or select the picture and use the arrow keys: its bucket-mates light up, those
# that it may look at and those that the window lost. Then move the controls.
#
# > **Predict, then move.** With 2 buckets instead of 8, does a token see more others or fewer? And with
# > more noise, which pushes every vector away from its letter: does it see fewer, or others?

# %%
from reformer_viz import explore_bucketing

explorer = explore_bucketing(n_tokens=64, n_buckets=8, n_hashes=4, chunk_length=8)
explorer

# %% [markdown]
# The sentence under the picture is made from the same numbers as the picture. Code can move the
# controls as well, and then says what changed:

# %%
explorer.controls["n_buckets"].value = 2
print(explorer, "\n")
explorer.controls["n_buckets"].value = 8

explorer.controls["noise"].value = 1.0
print(explorer)
explorer.controls["noise"].value = 0.4

# %% [markdown]
# *What you see:* with two buckets the rounds show more pairs together, although the window loses a large
# part of each bucket. Noise hardly changes how *many* pairs are seen, for the buckets stay about as full;
# it changes *who* is in them: equal letters keep together less.
#
# ## 2. The plan: attention that never builds length × length
#
# Everything in the picture is one value, a `BucketPlan`. In sorted order, what a token may see is one
# contiguous run of slots, from `first` to `last`. Attention consumes the plan, pictures are drawn
# from it, and the backward pass replays it.
#
# One text of sixteen words runs through all lessons. A word that comes back has nearly the same vector as
# the first time. Whom may its last word look at?

# %%
import torch

from reformer_core import (
    dense_lsh_attention,
    draw_rotations,
    hash_vectors,
    lsh_attention,
    plan_chunks,
)
from reformer_viz.lessons import WORDS, sixteen_tokens

words = sixteen_tokens()  # batch, heads, length, d_head
draw = torch.Generator().manual_seed(0)
directions = draw_rotations(n_hashes=3, n_heads=1, d_head=8, n_buckets=8, generator=draw)
of_words = plan_chunks(hash_vectors(words, directions), chunk_length=4, causal=True)

print(" ".join(WORDS))
for round, sees in enumerate(of_words.visible()[0, 0, :, -1]):
    seen_words = " ".join(f"{WORDS[j]}{j}" for j in sees.nonzero()[:, 0].tolist())
    print(f"round {round}: {WORDS[-1]}15 sees {seen_words or 'nobody'}")

# %% [markdown]
# *What you see:* the last word's best match is the first *cat*. One round misses it, the others show it.
#
# The same for 256 random vectors in two heads (a **head** is one of the attentions that run side by side in a
# layer, each with vectors of its own). How many pairs of a token and an earlier one do the rounds show?

# %%
generator = torch.Generator().manual_seed(0)
qk = torch.randn(1, 2, 256, 32, generator=generator, dtype=torch.float64)
values = torch.randn(1, 2, 256, 32, generator=generator, dtype=torch.float64)

rotations = draw_rotations(n_hashes=4, n_heads=2, d_head=32, n_buckets=16, generator=generator)
buckets = hash_vectors(qk, rotations)
plan = plan_chunks(buckets, chunk_length=32, causal=True)

pairs = 256 * 255 // 2
seen = (plan.times_seen() > 0).sum(dim=(-1, -2))[0]
print(f"of {pairs:,} earlier pairs, the heads look at {seen.tolist()}")

# %% [markdown]
# `lsh_attention` is *exact* attention over those pairs, one softmax over the union of all rounds, in
# which a pair counts once however many rounds show it:
#
# $$o_i = \sum_{j \in P_i} \exp(q_i \cdot k_j - z_i)\, v_j, \qquad P_i = \bigcup_r P_i^{(r)}$$
#
# Here $P_i^{(r)}$ are the positions that token $i$ sees in round $r$, and $v_j$ is the value of token $j$.
# Query and key are one vector, `qk`: $q_i$ is that of token $i$, and $k_j$ is $q_j$ scaled to length one. $z_i$ is
# the logarithm of the sum of all $\exp(q_i \cdot k_j)$, so that the weights add up to 1.
#
# The definition is a few lines that build `length × length`; the fast version must agree with it.

# %%
fast = lsh_attention(qk, values, plan)
by_definition = dense_lsh_attention(qk, values, plan)
assert torch.allclose(fast, by_definition, atol=1e-10)
print("equal to the definition within 1e-10:", torch.allclose(fast, by_definition, atol=1e-10))

# %% [markdown]
# ## 3. Does it learn? Copying
#
# The paper's first experiment: a sequence `0 w 0 w`, where `w` is random. The second half repeats the
# first, so a model that attends to the right place can predict it perfectly, and one that cannot
# look back far enough predicts nothing. One layer has to do two things at once: find the place, half
# a sequence back, by a hash, and read there what came next.

# %%
from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate

copying = Duplicate(vocab_size=32, length=64)
torch.manual_seed(0)
copier = ReformerLM(
    ReformerConfig(
        vocab_size=copying.vocab_size,
        d_model=64,
        n_layers=1,
        n_heads=4,
        attention=("lsh",),
        n_hashes=4,
        chunk_length=16,
        max_length=64,
    )
)

# %% [markdown]
# A recorder looks at one sequence that the model never trains on, the *probe*, every 15 steps, always with the
# same rotations: what moves in its buckets has been learned.

# %% tags=["nbval-ignore-output"]
from reformer_viz import Recorder

probe = next(copying.held_out(1)).tokens
recorder = Recorder(copier, probe, at=range(0, 301, 15))
copy_run = train(
    copier,
    copying,
    TrainConfig(steps=300, batch_size=32, learning_rate=2e-3, evaluate_every=50),
    on_step=recorder,
)
print(f"{copy_run.seconds:.0f} s on {copy_run.device}")
for evaluation in copy_run.evaluations:
    print(f"after {evaluation.step} steps: {evaluation.measure:.1%} of the copied tokens right")

# %%
accuracy = copy_run.evaluations[-1].measure
further = (
    f"only {accuracy:.1%}. Another seed may need more steps: run the cell above again, it goes on"
)
print("at least 99 % right:", accuracy >= 0.99 or further)

# %% [markdown]
# Scrub through the run below, or press play. Each row of colours is a snapshot; framed in the square
# are the pairs that matter in the end.
#
# > **Predict, then move.** When does the hash find them, before the loss falls or after?

# %% tags=["nbval-ignore-output"]
from reformer_viz import explore_training, measure_training

film = explore_training(measure_training(copy_run, recorder))
film

# %% [markdown]
# By code: the film's first picture and its last.
# (The shares differ a little from machine to machine, so only what holds on all is printed.)

# %%
sought_seen = film.data.organisation.sought_seen[
    :, 0
]  # of those pairs the share that some round sees
last = len(sought_seen) - 1
for snapshot in (0, last):
    film.place = {"snapshot": snapshot}
    print(str(film).partition(":")[0])  # the sentence's beginning
print("at the end the rounds see more of these pairs:", bool(sought_seen[last] > sought_seen[0]))

# %% [markdown]
# And the answer for your own run, loss and pairs side by side:

# %% tags=["nbval-ignore-output"]
for step, seen in zip(film.data.recording.steps[1::2], sought_seen[1::2], strict=True):
    print(
        f"step {step:3}: loss {film.data.loss[step - 1]:.2f}, a round sees {seen:.0%} of the pairs"
    )

# %% [markdown]
# *What we saw:* some of the pairs come together while the loss hardly moves, most of the others while it falls.
# Neither waits for the other. [Lesson 09](09_train_duplicate.ipynb) looks at it on a longer sequence.
#
# What did it learn to hash? `model.trace` runs the model once and keeps what every layer's attention
# saw: queries-and-keys, values, and the plan that was used. Here is one sequence that it has never
# seen; each copied token should share a bucket with what it must look at. The cell counts that in the
# model's own plan.

# %%
trace = copier.eval().trace(probe)
layer = trace.layers[0]
seen = (layer.plan.times_seen() > 0)[0].any(dim=0)  # by any head
needed = [(i, i - 31) for i in range(32, 63)]  # at i, the next token stands at i - 31
found = sum(bool(seen[i, j]) for i, j in needed)
print("most of the needed pairs were seen:", found >= len(needed) // 2)

# %% [markdown]
# ## 4. Reversible layers: computing again instead of keeping
#
# An ordinary layer's input must wait for the backward pass. A reversible layer has two streams, and
# its inputs follow from its outputs (Eq. 7-9):
#
# $$y_1 = x_1 + f(x_2), \quad y_2 = x_2 + g(y_1)
# \qquad\Longleftrightarrow\qquad x_2 = y_2 - g(y_1), \quad x_1 = y_1 - f(x_2)$$
#
# So nothing needs to wait: the backward pass computes every input again, from the last layer to the
# first. The function and its gradients stay the same; only the memory changes.
#
# Four ways are measured. *Standard* keeps everything; *checkpointed* keeps every layer's input and runs the
# layer again; *reversible* is the above; *reversible, chunked* also computes feed-forward and loss piece by
# piece (`ff_chunks`, `loss_chunks`: these pieces have nothing to do with the chunks of section 1).

# %%
from dataclasses import replace

from reformer_viz import measure_memory, plot_memory

small = ReformerConfig(
    vocab_size=256,
    d_model=64,
    n_heads=4,
    chunk_length=32,
    max_length=512,
    ff_chunks=4,
    loss_chunks=4,
)
memory = measure_memory(small, depths=(1, 2, 4, 8, 12), repeats=0)  # nothing is timed
print(memory.describe())
plot_memory(memory)

# %% [markdown]
# The numbers are counted, not estimated: every tensor that is alive, storage by storage, so they are
# the same on every machine. What still grows are the buckets (the second run, the *replay*, must not hash
# again: it would attend elsewhere), the states of the random generator, from which the replay draws the same
# dropout, and of course the parameters with their gradients. The price is time: every layer runs twice.
#
# Look at the *peak* as well: *checkpointing* has the lowest from the second depth on. These stacks are shallow; [lesson 07](07_reversible.ipynb) asks from which
# depth on reversing wins.
#
# Same weights, same tokens, once reversible and once not:

# %%
gradients = []
for reversible in (True, False):
    torch.manual_seed(0)
    model = ReformerLM(replace(small, n_layers=4, reversible=reversible)).double()
    model.loss(torch.arange(512)[None] % 256).backward()
    gradients.append([p.grad for p in model.parameters()])
agree = all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))
assert agree
print("the gradients agree within 1e-12:", agree)

# %% [markdown]
# ## 5. Real text
#
# `TextBytes` predicts a text byte by byte. Its default needs no network: the English text that every
# Python carries for its `help()`. A tenth of its topics is held out. The measure is **bits per byte**,
# which compression programs share: `xz`, given the training text first, is a bar to hold ours against, below
# for Python code and in [lesson 10](10_train_text.ipynb) for this text.
#
# Learning to write takes longer than a tour, so the course brings a writer. Its layers are of two kinds, as
# in the authors' configurations: attention in a local window, and LSH attention.

# %%
from reformer_viz.lessons import shipped

writer = shipped.load("text")
config = writer.model.config
print([config.attention_of(layer) for layer in range(config.n_layers)], "width", config.d_model)
print(writer.describe())

# %% [markdown]
# What does it write? Few people would mistake it for documentation, but before those steps it did not know
# what a letter is.

# %% tags=["nbval-ignore-output"]
from reformer_core import sample
from reformer_core.tasks import TextBytes


def continued(model, beginning):
    """Let a model of bytes go on from a beginning, always with the same dice."""
    dice = torch.Generator().manual_seed(0)
    prompt = TextBytes.encode(beginning)[None]
    return TextBytes.decode(
        sample(model, prompt, 160, temperature=0.7, top_p=0.95, generator=dice)[0]
    )


print(continued(writer.model, "The statement"))

# %% [markdown]
# Now train it further, on something that it has not read: Python's own code, the module `argparse`, of which
# the last tenth is held out. `TextBytes.from_file` takes any file of yours as well.

# %% tags=["nbval-ignore-output"]
import argparse

from reformer_core.training import evaluate

code = TextBytes.from_file(argparse.__file__, length=256)
student = shipped.load("text").model  # the writer itself stays as it is
before = evaluate(student, code)
code_run = train(
    student, code, TrainConfig(steps=24, batch_size=16, learning_rate=1e-3, evaluate_every=8)
)
print(f"{code_run.seconds:.0f} s on {code_run.device}")
print(f"before: {before.measure:.2f} bits per byte")
for evaluation in code_run.evaluations:
    print(f"after {evaluation.step} steps: {evaluation.measure:.2f} bits per byte")
print(f"xz, which saw the same training text: {code.xz_bits_per_byte():.2f}\n")
print(continued(student, "    def "))

# %%
bits = code_run.evaluations[-1].measure
further = (
    f"only from {before.measure:.2f} to {bits:.2f}. Run the cell above again with more `steps`"
)
print("at least a third of a bit per byte better:", bits < before.measure - 1 / 3 or further)

# %% [markdown]
# Where does the writer look while it writes? The microscope shows one head of it: the text and its sorted
# order, the chosen token's bucket-mates, those that the window lost, those that other rounds found, and what
# each of them weighs. Type a text of your own, choose another head.
#
# > **Predict, then move.** Choose the *l* of "evaluated". Whom will it weigh most: the letters before it, the
# > earlier *l*, or letters of the same kind? And with one round instead of four, how many others does it see?

# %%
from reformer_viz import explore_model

statement = "The statement executes the first clause, and the expression list is evaluated once."
microscope = explore_model(writer.model, statement)
microscope

# %%
for rounds in (4, 1):
    microscope.place = {"token": statement.index("luated"), "rounds": rounds}
    print(microscope, "\n")

# %% [markdown]
# *What you see:* in this head consonants share buckets: the *l* weighs another consonant most, and the earlier *l*
# next. The other rounds show it more tokens than the first one does. (What the model would have weighed with one
# round is not known without running it so: hence no weights are named there.)

# %% [markdown]
# ## What this tour did not show
#
# - **LSH attention is an approximation.** A pair that no round sees is missed. At these lengths full
#   attention is as fast and misses nothing; the Reformer earns its keep at thousands of tokens.
# - **The paper's chunk rule peeks a little.** Later tokens never carry weight, but they move the borders
#   of the chunks. `window="sliding"` within buckets is strictly causal.
# - **Reversible layers trade memory for time**, about one more forward pass. If depth is not what
#   fills your memory, they buy nothing.
#
# From here: `train` on your own file with `TextBytes.from_file`, keep the weights with
# `TrainConfig(folder=...)`, or from a shell: `python -m reformer_core train text --help`.
#
# ## Next
#
# The lessons take it apart, one question each. The first: [why is attention quadratic, and what of it
# is wasted?](01_why_quadratic.ipynb) Words are explained in the [glossary](../docs/glossary.md).

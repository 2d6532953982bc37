# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why is attention quadratic, and what of it is wasted?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/01_why_quadratic.ipynb)
#
# Attention lets every token look at every other one. A text of twice the length has four times as many
# pairs, so four times the scores to compute and, if they are kept, four times the memory. This lesson
# counts both. Then it looks at what the scores are for: the softmax gives nearly all of its weight to the
# few keys that point where the query points, as soon as the scores differ enough. Whoever knew those keys
# beforehand would never compute the rest.
#
# After this lesson you can
# - write the paper's attention (Eq. 1 and 2) over sixteen tokens, and say in what it differs from a
#   textbook's;
# - compute the bytes of the scores for any length, and say which length is too much;
# - count how many keys hold 90 % of a query's weight, and say what decides that number;
# - measure what share of full attention's weight a choice of pairs finds;
# - say for which vectors no choice of few pairs can be right.
#
# Needs: [the tour](00_tour.ipynb), and that you have met queries, keys and values before. Words:
# [glossary](../docs/glossary.md).
#
# *Runs in about 10 s on two cores.*
#
# Paper: [Reformer: The Efficient Transformer](https://arxiv.org/abs/2001.04451), Sec. 1 and the first
# page of Sec. 2.

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
# ## 1. Sixteen words look at each other
#
# One text runs through all lessons: sixteen words, some of which come back.

# %%
from reformer_viz.lessons import WORDS, sixteen_tokens

qk = sixteen_tokens()  # batch, heads, length, d_head
print(" ".join(WORDS))
print("shape:", tuple(qk.shape))

# %% [markdown]
# Every token has a **query** $q$ (what it looks for), a **key** $k$ (what it is found by) and a **value**
# $v$ (what it tells). As rows of the matrices $Q$, $K$ and $V$ they make attention (Eq. 1 of the paper):
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right) V$$
#
# Here $d_k$ is the width of a query. The entries of $QK^T$ are the **scores**, one for every query and
# key. The softmax turns each query's row of scores into **weights** that sum to 1: it takes the
# exponentials and divides them by their sum. For one query $i$ that looks at the positions in a set
# $\mathcal{P}_i$ this is Eq. 2:
#
# $$o_i = \sum_{j \in \mathcal{P}_i} \exp\left(q_i \cdot k_j - z(i, \mathcal{P}_i)\right) v_j,
# \qquad z(i, \mathcal{P}_i) = \log \sum_{j \in \mathcal{P}_i} \exp(q_i \cdot k_j)$$
#
# The Reformer's attention, which this course uses throughout, differs from the textbook's in three ways:
#
# 1. Queries and keys are one tensor, `qk`. A key is only the *direction* of its query, $k_j = q_j / |q_j|$
#    (Sec. 2, "Shared-QK Attention"), and nothing is divided by $\sqrt{d_k}$. So a score is
#    $q_i \cdot k_j = |q_i| \cos(\text{angle between the two})$.
# 2. It is causal: $\mathcal{P}_i$ holds earlier positions only.
# 3. A token looks at itself only when it has nobody else, as the first token does. Its own key points
#    exactly its way, and would always win.
#
# In the cell every token's value is its own place, a row of the identity matrix, so that what attention
# returns *is* the matrix of weights. By hand it is five lines; `full_attention` must agree.

# %%
import torch

from reformer_core import full_attention, keys_from

places = torch.eye(len(WORDS))[None, None]
weights = full_attention(qk, places, causal=True)[0, 0]

scores = (qk @ keys_from(qk).mT)[0, 0]  # 16 x 16
earlier = torch.ones(16, 16, dtype=torch.bool).tril(-1)
earlier[0, 0] = True  # nobody else is there
by_hand = scores.masked_fill(~earlier, -torch.inf).softmax(-1)

print("by hand and by the package the same:", torch.allclose(by_hand, weights))
last = weights[-1]
for j in last.argsort(descending=True)[:4].tolist():
    print(f"the last '{WORDS[-1]}' gives {last[j]:.1%} to '{WORDS[j]}' at {j}")

# %% [markdown]
# What you see: the last word looks most at the same word, and still gives most of its weight to others.
# Section 4 asks why.
#
# ## 2. What quadratic costs
#
# `scores` holds `length × length` numbers, for every head and every text of the batch. A float32 has four
# bytes:

# %%
from reformer_viz.measure.live_bytes import in_units

for length in (16, 256, 4_096, 65_536):
    print(f"{length:6,} tokens: {length**2:13,} scores, {in_units(4 * length**2)} a head")

# %% [markdown]
# The last line is the paper's example (Sec. 2): one head's scores for one text of 64K tokens fill a
# large accelerator. That is counted on paper. What does a real forward and backward pass need? The next
# cell runs both attentions of this package, counts every tensor that is alive, and takes the most. No
# clock is involved, so the numbers are the same on your machine.
#
# > **Predict, then look.** From each length to its double: by which factor do full attention's bytes grow,
# > and by which LSH attention's?

# %%
from reformer_core import ReformerConfig
from reformer_viz import measure_attention_memory, plot_attention_memory

config = ReformerConfig(vocab_size=256, d_model=64, n_heads=4, chunk_length=32, n_hashes=2)
memory = measure_attention_memory(config, lengths=(128, 256, 512, 1024, 2048))
print(memory.describe())
print("full, each over the one before:", (memory.full[1:] / memory.full[:-1]).round(2).tolist())
print("LSH,  each over the one before:", (memory.lsh[1:] / memory.lsh[:-1]).round(2).tolist())
plot_attention_memory(memory)

# %% [markdown]
# What you see: on these axes a power of the length is a straight line, whose slope is the power. Full
# attention's bytes grow nearly fourfold from a length to its double, like the square. LSH attention's
# double at first, and then grow more slowly: its scores exist in blocks of a limited size, so that in the
# end only what goes in and comes out is left to grow, and that is proportional to the length. The dotted
# lines are the terms of the paper's Table 1, to which nothing is fitted ($b$ texts, $n_h$ heads, $l$
# tokens, $n_r$ rounds, and $c = (4l/n_c)^2$ with $n_c$ chunks: so it is printed, and far more than is needed; no other
# lesson uses these letters).
#
# To the left full attention needs *less*. Short texts have no reason for anything else.
#
# **The memory can be avoided, the work cannot.** Nobody has to hold all scores at once: take one query
# after the other, and only one row exists at a time (Sec. 2, "Memory-efficient attention"; the fused
# kernels of today do it block by block). The multiplications stay. Counted exactly:

# %%
from torch.utils.flop_counter import FlopCounterMode

for length in (512, 1024, 2048):
    vectors = torch.zeros(1, 1, length, 16)
    with FlopCounterMode(display=False) as counter:
        full_attention(vectors, vectors, causal=True)
    print(f"{length:5,} tokens: {counter.get_total_flops():12,} operations")

# %% [markdown]
# Twice the length, four times the operations: two for each number of each product, once for the scores
# and once for the weighted sum of the values.
#
# ## 3. The paper's accounts
#
# Section 1 of the paper asks why a model whose largest layer fits into 2 GB should need a cluster:

# %%
accounts = {
    "parameters of the largest layer then known": 500_000_000,
    "one layer's activations: 8 texts x 64K tokens x width 1,024": 8 * 65_536 * 1_024,
    "one head's scores for one text of 64K tokens": 65_536**2,
}
for what, numbers in accounts.items():
    print(f"{in_units(4 * numbers):>8}  {what}")

# %% [markdown]
# A layer alone is no problem, it says. Three things are:
#
# - attention's scores grow with `length²`;
# - every layer's activations wait for the backward pass, so they count `depth` times;
# - inside a feed-forward layer the width is often four times as large.
#
# Which comes first? The scores of one layer against what all layers keep, for a model of 12 layers,
# 8 heads and width 1,024:

# %%
n_layers, n_heads, d_model = 12, 8, 1_024
for length in (256, 1_024, 4_096, 16_384, 65_536):
    scores_of_one = 4 * n_heads * length**2
    kept_by_all = 4 * n_layers * length * d_model
    first = "scores" if scores_of_one > kept_by_all else "depth"
    print(f"{length:6,} tokens: {in_units(scores_of_one):>8} of scores, ", end="")
    print(f"{in_units(kept_by_all):>8} kept over the layers: {first} first")
print(f"they are equal at {n_layers * d_model // n_heads:,} tokens")

# %% [markdown]
# What you see: for short texts depth is the problem, for long ones the scores are, and neither answer helps
# against the other. Lessons 02 to 05 deal with the scores, lesson 07 with the depth, lesson 08 with the
# width.
#
# ## 4. What the softmax makes of the scores
#
# A score is $|q_i| \cos(\text{angle})$. So *which* keys get most is decided by the angles alone, and *how
# much* they get by the length of the query. Take the last word again, as it is and with vectors eight
# times as long:

# %%
directions = keys_from(qk)
angles = (directions @ directions.mT)[0, 0, -1, :-1].clamp(-1, 1).acos().rad2deg()
sharp = full_attention(8 * qk, places, causal=True)[0, 0, -1]
print("  word at   angle   weight   weight of vectors 8 times as long")
for j in angles.argsort()[:6].tolist():
    print(f"{WORDS[j]:>6} {j:2} {angles[j]:6.0f}° {last[j]:8.1%} {sharp[j]:8.1%}")

# %% [markdown]
# The order is that of the angles, twice. How many of its keys does a query need until it has 90 % of its
# weight, on average over the queries that have any?

# %%
for times in (1, 2, 4, 8):
    longer = full_attention(times * qk, places, causal=True)[0, 0, 1:]
    held = longer.sort(descending=True).values.cumsum(-1)  # by the first 1, 2, 3, ... keys
    needed = 1 + (held < 0.9).sum(-1).float().mean().item()
    length_of_q = times * qk.norm(dim=-1).mean().item()
    print(f"|q| about {length_of_q:4.1f}: 90 % are held by {needed:.1f} keys of {15 / 2 + 0.5:.1f}")

# %% [markdown]
# What you see: short vectors spread the weight over nearly all keys, long ones give it to the one or two
# nearest. Nothing but training decides how long the vectors are: the matrix that makes them is learned. A
# model that has to find one place in a text grows long queries; a model that averages keeps them short.
#
# **This is the assumption under the whole paper**: softmax is dominated by few keys, and they are the
# nearest in angle. Where a head really averages over everything, leaving keys out is wrong, and no hash
# will help. Whether yours do can be measured, and lesson 10 does it on a model trained on text.
#
# ## 5. Which pairs would be enough?
#
# Suppose somebody told us which word every token is, and a token looked at the earlier tokens of its own
# word only. Here is a longer text, made like the sixteen words: 1,024 tokens of a vocabulary of 64, each a
# word's direction plus a little noise, and sharp.
#
# `plan_chunks` turns such numbers into a **plan**: who may look at whom. Tokens of one number share a
# **bucket**, and look at nobody outside. (What its chunks are is for
# lesson 03; here they are long enough not to matter.) `measure_sparsity` then compares the plan with full
# attention.

# %%
from reformer_core import plan_chunks
from reformer_viz import measure_sparsity, plot_sparsity

generator = torch.Generator().manual_seed(0)
vocabulary = torch.rand(64, 32, generator=generator) * 2 - 1
word_of = torch.randint(64, (1024,), generator=generator)
noise = torch.rand(1024, 32, generator=generator) * 2 - 1
text = 4 * (vocabulary[word_of] + 0.2 * noise)[None, None]

oracle = plan_chunks(word_of[None, None, None], chunk_length=64, causal=True, n_buckets=64)
told = measure_sparsity(oracle, text)
print(f"{told.visible_fraction:.1%} of the pairs have {told.mass_found:.0%} of the weight")
plot_sparsity(told)

# %% [markdown]
# What you see: left the pairs that the oracle's plan looks at, right the weights of full attention. They
# are the same dots. Everything between them was computed for the remaining few percent, most of it the
# tokens whose word is new, and for whom no key is near.
#
# For texts of 64K tokens the paper hopes for "the 32 or 64 closest keys" of each query (Sec. 2). All hangs
# on finding them without an oracle, and without looking at all pairs.
#
# ## 6. Without an oracle
#
# This is where the lessons go: below, *hashing* chooses the pairs of our sixteen words, four times
# with different dice. A colour says which of these rounds saw the pair first; at the right stands what
# full attention would do. The controls named buckets and rounds belong to the next lessons. Noise is added
# here only to what is hashed: the hash sees every vector pushed away from its word, and full attention keeps
# the vectors as they are.
#
# > **Predict, then move.** Push `noise` up. What changes, the weights at the right, the pairs that the rounds
# > see, or both? And will the hash find more of the weight than before, or less?

# %%
from reformer_viz import explore_sparsity

explorer = explore_sparsity(4 * qk[0, 0], labels=WORDS, n_buckets=8, n_hashes=4, chunk_length=16)
explorer

# %% [markdown]
# Code can move the controls, too, and then reads the sentence under the picture:

# %%
print(explorer)
explorer.controls["noise"].value = 1.5
print(explorer)
explorer.controls["noise"].value = 0.0

# %% [markdown]
# What you see: the weights stay, since noise reaches only the hash. Without it the hash finds a much larger
# share of the weight than of the pairs. With much of it the two shares are nearly alike: equal words no longer
# point the same way for the hash, which might as well have chosen by lot. The last number says what it costs: scores are computed in *tiles*, blocks of queries and
# keys, and what of a tile is not visible is thrown away ([lesson 11](11_fast.ipynb)). For sixteen tokens four rounds
# compute *more* scores than full attention. Hashing is for long texts.
#
# ## What surprised us
#
# - **Two implementations of "the same" attention need not be.** The paper's text leaves out
#   $1/\sqrt{d_k}$ "for clarity"; its authors' code has unit keys and no such factor; a widely used
#   re-implementation has both the unit keys *and* the factor. Its scores are smaller by $\sqrt{d_k}$, so its
#   softmax is much flatter at the start of training. Section 4 shows what that does: everybody is looked at a
#   little, which is what hashing is worst at.
# - **Table 1 prints the same memory for full attention and for memory-efficient attention.** The text
#   beside it says that the second is proportional to the length. Believe the text.
# - **A model may not need its attention at all.** Somebody set all LSH layers of a published checkpoint to
#   zero, on short texts, where that library does not hash at all, and the predictions hardly got worse. Measure
#   what attention contributes before making it fast.
# - **Pictures of attention are quadratic, too.** A popular viewer of attention weights fails to load from 512
#   tokens on. The pictures of this course are drawn from the plan, and count pairs in cells where there are
#   too many.
#
# ## Exercises
#
# Each exercise has a stub. Fill it in, run the cell, and the check says whether it is right, or which of the
# usual mistakes it looks like. `...` and `NotImplementedError` count as "not yet".

# %%
from reformer_viz.lessons.checks import quadratic as check

# %% [markdown]
# ### 1. How many bytes?
# *Difficulty ●○○○○, importance ●●●○○, about 5 minutes.*
#
# Return the bytes of the scores that `full_attention` computes, in float32, for a batch of texts of one
# length.
#
# <details><summary>Hint 1</summary>
#
# How many scores has one query? How many queries are there in one head? How many heads in all?
#
# </details>
# <details><summary>Hint 2</summary>
#
# The causal mask comes after the product, so it saves nothing. A float32 has 32 bits.
#
# </details>


# %% tags=["exercise"]
def score_bytes(batch, n_heads, length):
    """Return a whole number of bytes."""
    raise NotImplementedError


check.score_bytes(score_bytes)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def score_bytes(batch, n_heads, length):
#     return 4 * batch * n_heads * length**2
# ```
#
# Every pair of a query and a key has a score, in every head of every text. Only the length is squared.
#
# </details>

# %% [markdown]
# ### 2. Attention by its definition
# *Difficulty ●●●○○, importance ●●●●●, about 15 minutes.*
#
# Write the attention of section 1 for any batch, heads, length and values: unit keys, earlier tokens only,
# and the first token attends to itself. Section 1 has nearly all of it.
#
# <details><summary>Hint 1</summary>
#
# `scores = qk @ keys_from(qk).mT` works for any number of leading axes, and so does a mask of shape
# `(length, length)`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Who is the only token without an earlier one? Give it one visible position before you mask.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Mask with `-torch.inf`, not with a large number, and take the softmax over the last axis.
#
# </details>


# %% tags=["exercise"]
def attention(qk, values):
    """Attend to all earlier tokens; both are "batch heads length width"."""
    raise NotImplementedError


check.attention(attention)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def attention(qk, values):
#     length = qk.shape[-2]
#     visible = torch.ones(length, length, dtype=torch.bool).tril(-1)
#     visible[0, 0] = True
#     scores = qk @ keys_from(qk).mT
#     return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ values
# ```
#
# With one visible position the softmax gives it weight 1, whatever its score: the first token gets its own
# value.
#
# </details>

# %% [markdown]
# ### 3. The nearest keys
# *Difficulty ●●●○○, importance ●●●●○, about 15 minutes.*
#
# Mark for every query the `n` earlier keys that are nearest *in angle*, or all of them where there are fewer.
# The vectors may have very different lengths.
#
# <details><summary>Hint 1</summary>
#
# The cosine of an angle is the product of two vectors of length one. `keys_from` makes them.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Put `-torch.inf` where the key is not earlier, and take `topk(min(n, length), dim=-1).indices`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.zeros(...).bool().scatter(-1, indices, True)` marks them. The first rows have fewer than `n` earlier
# keys, so mask once more at the end.
#
# </details>


# %% tags=["exercise"]
def nearest(qk, n):
    """Return True or False, "batch heads length length": a query in each row."""
    raise NotImplementedError


check.nearest(nearest)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def nearest(qk, n):
#     directions = keys_from(qk)
#     cosines = directions @ directions.mT
#     length = qk.shape[-2]
#     earlier = torch.ones(length, length, dtype=torch.bool).tril(-1)
#     ranked = cosines.masked_fill(~earlier, -torch.inf)
#     indices = ranked.topk(min(n, length), dim=-1).indices
#     return torch.zeros_like(cosines).bool().scatter(-1, indices, True) & earlier
# ```
#
# `qk @ keys_from(qk).mT` would rank the same: within a row, $|q_i|$ is one factor for all.
#
# </details>

# %% [markdown]
# ### 4. What is a plan worth?
# *Difficulty ●●●○○, importance ●●●●●, about 15 minutes.*
#
# Return the share of full attention's weight that lies on the pairs which the plan shows in any of its
# rounds: for every query that has somebody to look at, then the average over them. `plan.visible()` is bool,
# "batch heads rounds length length". There is one text and one head.
#
# <details><summary>Hint 1</summary>
#
# Full attention's weights come out where the values are the identity matrix.
#
# </details>
# <details><summary>Hint 2</summary>
#
# "In any round" is `.any(dim=2)`. Which query has nobody to look at, even in full attention?
#
# </details>


# %% tags=["exercise"]
def mass_found(qk, plan):
    """Return a number between 0 and 1."""
    raise NotImplementedError


check.mass_found(mass_found)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def mass_found(qk, plan):
#     places = torch.eye(qk.shape[-2])[None, None]
#     weights = full_attention(qk, places, causal=True)
#     visible = plan.visible().any(dim=2)
#     found = (weights * visible).sum(-1)[0, 0]
#     return found[1:].mean()
# ```
#
# `measure_sparsity(plan, qk).mass_found` is this number, without ever building `length × length`.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# Answer aloud, then open.
#
# <details><summary>1. How many scores has a text of 10,000 tokens, in one head?</summary>
#
# A hundred million: one for every query and key.
#
# </details>
# <details><summary>2. What doubles, and what goes up four times, when the text doubles?</summary>
#
# Queries, keys, values and the output double. Scores, weights and the multiplications that make and use them
# go up four times.
#
# </details>
# <details><summary>3. Which part of the quadratic cost can be avoided exactly, and how?</summary>
#
# The memory: take a few queries at a time and forget their scores. The work stays.
#
# </details>
# <details><summary>4. In what three ways does the Reformer's attention differ from Eq. 1?</summary>
#
# Queries and keys are one tensor, with keys of length one and no further scale; only earlier tokens are seen;
# a token sees itself only when there is nobody else.
#
# </details>
# <details><summary>5. What decides which keys get the most weight, and what decides how much they get?</summary>
#
# Their angle to the query decides the order. The length of the query decides how sharply the softmax prefers
# the first ones.
#
# </details>
# <details><summary>6. When is leaving keys out wrong, however cleverly they are chosen?</summary>
#
# When the weight is spread over all of them: a head that averages.
#
# </details>
# <details><summary>7. When are the layers' activations a bigger problem than the scores?</summary>
#
# In short texts and deep models. The scores of one layer are `n_heads × length²`, what is kept is
# `n_layers × length × d_model` and more.
#
# </details>
#
# ## Next
#
# [When do two vectors share a bucket?](02_hashing.ipynb) There a vector gets a number, so that vectors which
# point the same way probably get the same one.
#
# Further reading: the paper's Sec. 1 for the accounts, Sec. 2 up to "Locality sensitive hashing" for Eq. 1 and
# 2, and Table 1.

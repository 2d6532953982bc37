# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Shared query-key: what does it cost?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/06_shared_qk.ipynb)
#
# In a Transformer each token makes three vectors: a *query* (what it looks for), a *key* (what it offers)
# and a *value* (what it gives). The Reformer makes two: query and key are one vector, `qk`, and the key is
# that vector at length 1. This lesson asks why, what becomes of attention, and what a head can no longer
# do. The answers are less obvious than "half the freedom": we measure them, with heads that are fitted in
# seconds.
#
# After this lesson you can
# - explain why hashing wants one vector for both roles, and why the key has length 1;
# - compute shared-QK attention with the right scale, and take a gradient through the key's normalisation;
# - tell which patterns a shared head can express, which it cannot, and prove the impossible one;
# - say how positions, values and a second layer get around it.
#
# Needs: [hashing](02_hashing.ipynb) and, for oneself last, [does it peek?](05_does_it_peek.ipynb) Words:
# [glossary](../docs/glossary.md).
#
# Paper: Sec. 2, "Where do Q, K, V come from?" and "LSH attention"; Sec. 5, "Effect of sharing QK", and
# Figure 3 (left).
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
# ## 1. Why hashing wants it
#
# A hash by direction brings together vectors that *point the same way*. Attention wants the keys with the
# largest *product* with a query. With separate queries and keys those are different things, for two
# reasons: a long key has large products with everybody; and queries and keys live in spaces of their own,
# where nothing makes a query point near the key that it wants.
#
# Take random queries and keys, and ask of each query: where is its best key, by score, and how near is that
# key in angle? Then the same with shared vectors.

# %%
import torch

from reformer_core import keys_from

generator = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.rand(shape, generator=generator) * 2 - 1


lengths = 0.2 + 3 * torch.rand(1, 1, 256, 1, generator=generator)
queries, keys = draw(1, 1, 256, 8), lengths * draw(1, 1, 256, 8)
itself = torch.eye(256, dtype=torch.bool)


def best_is_nearest(queries, keys):
    """Return the share of queries whose best key by score is also the nearest in angle."""
    best = (queries @ keys.mT).masked_fill(itself, -torch.inf).argmax(-1)
    nearest = (queries @ keys_from(keys).mT).masked_fill(itself, -torch.inf).argmax(-1)
    return (best == nearest).float().mean().item()


qk = lengths * draw(1, 1, 256, 8)
print(f"separate, keys of many lengths: {best_is_nearest(queries, keys):.0%}")
print(f"separate, unit keys:            {best_is_nearest(queries, keys_from(keys)):.0%}")
print(f"shared, unit keys:              {best_is_nearest(qk, keys_from(qk)):.0%}")

# %% [markdown]
# With **unit keys** the best key is the nearest one, always:
#
# $$k_j = \frac{q_j}{\lVert q_j \rVert}, \qquad q_i \cdot k_j = \lVert q_i \rVert \cos(q_i, q_j)$$
#
# That would allow separate keys, if they are normalised. **Sharing** does the second half: bucket-mates. It
# makes $h(k_j) = h(q_j)$, so that every token has *one* bucket, one sort serves both roles, and a bucket
# holds as many keys as queries. With separate vectors a bucket may hold many queries and not one key:

# %%
from reformer_core import draw_rotations, hash_vectors

rotations = draw_rotations(1, 1, 8, n_buckets=16, generator=torch.Generator().manual_seed(1))
shift = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])  # apart, as learned ones may be
separate = queries + shift, draw(1, 1, 256, 8) - shift
for name, (q, k) in {"separate": separate, "shared": (qk, keys_from(qk))}.items():
    of_q, of_k = (hash_vectors(x, rotations)[0, 0, 0].bincount(minlength=16) for x in (q, k))
    print(f"{name}: {int(of_q[of_k == 0].sum())} of 256 queries in a bucket without a key")
    print("  queries in each bucket:", of_q.tolist())
    print("  keys in each bucket:   ", of_k.tolist())

# %% [markdown]
# What you see: in the shared case both rows are equal, whatever the vectors are.

# %% [markdown]
# ## 2. The scale: nothing more to divide by
#
# A Transformer divides scores by $\sqrt{d}$, the root of the head's size, because products of long random
# vectors are large (Eq. 1). Here the keys have length 1, and a score is at most $\lVert q_i \rVert$. **The
# length of the query is how sharply it attends**, and the model sets it token by token. Dividing by
# $\sqrt d$ *as well* is what the paper's prose suggests and the authors' code does not do, and one finds it in
# published code; what it does to a query that points exactly at one of 1,000 keys, the others at right angles:

# %%
d_head, others = 64, 999
for length in (2.0, 8.0, 16.0):
    right, wrong = (
        torch.tensor([score] + [0.0] * others).softmax(0)[0].item()
        for score in (length, length / d_head**0.5)
    )
    print(f"|q| = {length:4.1f}: weight {right:.3f}, divided once more {wrong:.3f}")

# %% [markdown]
# What you see: with the division a query has to be eight times as long to say the same, for heads of 64. It
# is not wrong for ever, a model can learn longer queries, but it starts out nearly blind. (The paper's prose
# leaves the scale out "for clarity", in Eq. 2; the authors' code has unit keys and nothing else.)

# %% [markdown]
# ## 3. The same cosine both ways
#
# From i to j or from j to i, the angle is one and the same. So the two scores differ by the askers' lengths
# alone, and before the softmax,
#
# $$\frac{s_{ij}}{\lVert q_i \rVert} = \cos(q_i, q_j) = \frac{s_{ji}}{\lVert q_j \rVert}$$

# %%
from reformer_viz.lessons import WORDS, sixteen_tokens

words = 2 * sixteen_tokens()
scores = (words @ keys_from(words).mT)[0, 0]
cosines = scores / words.norm(dim=-1)[0, 0, :, None]
print("scores symmetric:", torch.allclose(scores, scores.T, atol=1e-5))
print("scores / |q_i| symmetric:", torch.allclose(cosines, cosines.T, atol=1e-5))
longest, shortest = (int(pick(words.norm(dim=-1)[0, 0])) for pick in (torch.argmax, torch.argmin))
print(f"sharpest asker: {WORDS[longest]}{longest}, vaguest: {WORDS[shortest]}{shortest}")

# %%
from reformer_viz.style import SEQUENTIAL, dress, new_figure


def plot_weights(**matrices):
    """Draw matrices of weights side by side, queries in rows."""
    figure = new_figure(2.6 * len(matrices) + 0.4, 3.0)
    for axes, (title, matrix) in zip(
        figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        axes.imshow(matrix, cmap=SEQUENTIAL, vmin=min(0, matrix.min().item()), vmax=1)
        dress(axes, title.replace("_", " "), "key", "query")
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


others = scores.masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
plot_weights(cosines=cosines, weights_both_ways=others.softmax(-1))

# %% [markdown]
# What you see: left, a mirror: the bright diagonal is everybody with itself, the other bright cells are words
# that come back. Right, the weights: rows sum to 1, so the mirror is bent, but whoever matters to me still
# finds me near.
#
# Sharing a *bucket* is mutual too. In the explorer, which here reads both ways (`causal=False`), look at the
# left picture, who sees whom.
#
# (Its sentence also says what *whole tiles* compute: a machine multiplies blocks of queries with blocks of keys,
# and computes all pairs of a block for the sake of those that are seen; [lesson 11](11_fast.ipynb) counts them.)
#
# > **Predict, then move.** Is it its own mirror image? Does that survive noise of 1, and other rotations?

# %%
from reformer_viz import explore_sparsity

explorer = explore_sparsity(
    words[0], labels=WORDS, n_buckets=4, n_hashes=2, chunk_length=8, causal=False, chunks_after=1
)
explorer

# %%
explorer.controls["noise"].value = 1.0
print(explorer)
seen = explorer.data.plan.visible()
print("its own mirror image:", torch.equal(seen, seen.mT))

# %% [markdown]
# ## 4. What can one head express?
#
# Enough theory: fit a head to a wanted pattern, and see. Every token has free vectors of 8 numbers, and we
# turn them by gradient descent until token i gives as much weight as possible to token `wanted[i]`, once
# with separate queries and keys, once with shared ones. (Both with unit keys, oneself hidden; -1 means
# that nothing is wanted.)


# %%
def visible_to(length, causal):
    everyone = ~torch.eye(length, dtype=torch.bool)
    return everyone.tril() if causal else everyone


def weights_of(q, k, causal):
    """Return the weights of unit keys, oneself hidden; the first causal row is left empty."""
    scores = (q[None, None] @ keys_from(k[None, None]).mT)[0, 0]
    visible = visible_to(len(q), causal)
    return scores.masked_fill(~visible, -1e9).softmax(-1) * visible


torch.set_num_threads(1)  # these are small matrices: a second thread would mostly wait


def fit(wanted, shared, causal, d_head=8, steps=400):
    """Turn free vectors until token i attends to wanted[i]; return the weights."""
    generator = torch.Generator().manual_seed(6)
    q, k = (
        (torch.rand(len(wanted), d_head, generator=generator) - 0.5).requires_grad_() for _ in "qk"
    )
    optimizer = torch.optim.Adam([q] if shared else [q, k], lr=0.1)
    rows = wanted >= 0
    for _ in range(steps):
        weights = weights_of(q, q if shared else k, causal)
        loss = -weights[rows, wanted[rows]].clamp(min=1e-9).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach()


n = 16
after_last = torch.full((n,), -1)  # the token after my last occurrence
for i in range(n):
    before = [j for j in range(i) if WORDS[j] == WORDS[i] and j + 1 < i]
    if before:
        after_last[i] = before[-1] + 1

patterns = {
    "the token before, reading back": (torch.arange(n) - 1, True),
    "after my last occurrence, reading back": (after_last, True),
    "in pairs, reading both ways": (torch.arange(n) ^ 1, False),
    "a ring, each to the next, both ways": ((torch.arange(n) + 1) % n, False),
}

# %% [markdown]
# > **Predict.** Which of these four will the shared head fail at? Remember that it only *has* to treat both
# > directions alike; which patterns use both?

# %% tags=["nbval-ignore-output"]
print("weight on the wanted token, on average (and of the worst off)")
fitted = {}
for name, (wanted, causal) in patterns.items():
    rows = wanted >= 0
    for shared in (False, True):
        fitted[name, shared] = fit(wanted, shared, causal)
    separate, both = (fitted[name, s][rows, wanted[rows]] for s in (False, True))
    averages = f"separate {separate.mean():.2f} ({separate.min():.2f})"
    print(f"{name:40}{averages}, shared {both.mean():.2f} ({both.min():.2f})")

# %%
for name, (wanted, _) in patterns.items():
    rows = wanted >= 0
    does = {s: bool(fitted[name, s][rows, wanted[rows]].min() > 0.5) for s in (False, True)}
    print(f"{name:40}all above 0.5: separate {does[False]}, shared {does[True]}")

# %% tags=["nbval-ignore-output"]
ring = "a ring, each to the next, both ways"
pointer = "after my last occurrence, reading back"
plot_weights(
    ring_separate=fitted[ring, False],
    ring_shared=fitted[ring, True],
    pointer_separate=fitted[pointer, False],
    pointer_shared=fitted[pointer, True],
)

# %% [markdown]
# What you see: reading back only, sharing costs nothing here. Of each pair only *one* direction is ever used,
# and if every token has a vector of its own, it can be put next to whatever it wants to look at. Reading
# both ways, pairs that look at each other are even natural. The ring fails: some tokens look at the one
# *before* as well, or at everybody a little, and there are always such.
#
# There must be. Write $c_i$ for the cosine between token i and the next. To prefer the next over the one
# before, token i needs $c_i > c_{i-1}$. Go once around the ring: $c_0 < c_1 < \dots < c_{n-1} < c_0$. Nobody
# is smaller than himself, so in no dimension and after no training do all of them succeed.

# %% [markdown]
# ## 5. When vectors come from content
#
# A vector of its own for every token: that is what learned *positions* can give. Content cannot. Take the
# copying task of the tour: random words, said twice. Suppose that a head knows of every token *what it is* and *what came
# before it* (in a model, an earlier layer would tell it the latter). To predict the next word, look at *the
# key whose predecessor is what I am*.
#
# With separate projections that is easy: the query reads "what I am", the key "what came before me". A
# shared projection cannot even aim: a token's *twin*, the same word half a text back, has the same word
# before it too (but for the first word, which had none), so it has the **same vector**. Nothing is nearer
# than that. The twin gets the largest weight, and the wanted key, one place further on, less.
#
# Is the task lost? Train the whole layer for the next word (attention, values, and a direct path past the
# attention), and see both: the weight on the wanted key and on the twin, and the share of right answers,
# all on texts that it has never seen.

# %%
N_WORDS, HALF = 16, 12
LENGTH = 2 * HALF
asked = torch.arange(HALF, LENGTH - 1)  # from here the next word can be known
twin = asked - HALF
following = twin + 1  # and there the next word stands


def texts(n_texts, seed, positions):
    """Draw words said twice: the words, and what the head knows of every token."""
    generator = torch.Generator().manual_seed(seed)
    said = torch.rand(n_texts, N_WORDS, generator=generator).argsort(-1)[:, :HALF]
    word = said.repeat(1, 2)
    is_ = torch.nn.functional.one_hot(word, N_WORDS).float()
    before = is_.roll(1, 1)
    before[:, 0] = 0
    place = torch.eye(LENGTH).expand(n_texts, -1, -1)
    return word, torch.cat([is_, before, place] if positions else [is_, before], -1)


def learn_to_copy(shared, positions=False, steps=300):
    """Train one layer; return weight on wanted and twin, right answers, and the wanted's cosine."""
    generator = torch.Generator().manual_seed(9)
    word, known = texts(128, 10, positions)
    q, k = (torch.rand(known.shape[-1], 32, generator=generator) - 0.5 for _ in "qk")
    values, direct = torch.zeros(2, known.shape[-1], N_WORDS)
    values[:N_WORDS] = 5 * torch.eye(N_WORDS)  # at first, a value says which word it is
    maps = [one.clone().requires_grad_() for one in (q, k, values, direct)]

    def layer(known):
        q, k, values, direct = maps
        keys = keys_from((known @ (q if shared else k))[:, None])[:, 0]
        scores = (known @ q) @ keys.mT
        weights = scores.masked_fill(~visible_to(LENGTH, True), -1e9).softmax(-1)
        return weights, weights @ (known @ values) + known @ direct, keys

    optimizer = torch.optim.Adam(maps, lr=0.05)
    for _ in range(steps):
        _, logits, _ = layer(known)
        loss = torch.nn.functional.cross_entropy(
            logits[:, asked].flatten(0, 1), word[:, asked + 1].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    word, known = texts(128, 11, positions)
    with torch.no_grad():
        weights, logits, keys = layer(known)
    right = logits[:, asked].argmax(-1) == word[:, asked + 1]
    cosine = (keys[:, asked] * keys[:, following]).sum(-1)
    measures = weights[:, asked, following], weights[:, asked, twin], right.float(), cosine
    return tuple(measure.mean().item() for measure in measures)


# %% tags=["nbval-ignore-output"]
import math

from reformer_viz import collision_probability

copied = {
    "separate": learn_to_copy(shared=False),
    "shared": learn_to_copy(shared=True),
    "shared, trained longer": learn_to_copy(shared=True, steps=900),
    "shared, with positions": learn_to_copy(shared=True, positions=True),
}
for name, (on_wanted, on_twin, right, cosine) in copied.items():
    weight = f"weight on wanted {on_wanted:.2f}, on twin {on_twin:.2f}"
    print(f"{name:22} {weight}, right answers {right:.0%}")
    if "shared" in name:
        angle = math.degrees(math.acos(cosine))
        chance = collision_probability(angle, n_buckets=32)
        print(f"  wanted at {angle:.0f} degrees: in one bucket of 32 with chance {chance:.2f}")

# %%
for name, (on_wanted, on_twin, _, _) in copied.items():
    print(f"{name:22} aims: {on_wanted > 0.9}, looks at the twin more: {on_twin > on_wanted}")
longer, short = copied["shared, trained longer"], copied["shared"]
print("training longer mends the answers:", longer[2] > short[2] + 0.2)
print("and not where the head looks:", longer[0] < 0.3)

# %% [markdown]
# What you see: without positions the shared head looks at the twin most, and much less at the wanted
# key. Trained longer it still looks there, and learns to answer all the same. It cannot aim, but it can
# *subtract*: the twin's value is the token's own word, which is known, so the direct path takes it away, and
# what is left points at the next word. With positions it aims too, but at a *place*: here the copy always stands
# the same distance back, so that the head need not look at words. For repeats at a changing distance that proves
# nothing. (One start each; other seeds give other digits.)
#
# **A pattern that cannot be expressed is not yet a function that cannot.** But reading a faint rest is
# slow to learn, and with hashing there is a catch: a key that is not the nearest is found less surely, so that
# it takes more rounds, and what is not seen leaves no rest. The ways out of a Reformer are positions, where
# distances are fixed, and layers that do not share: an earlier one can make vectors which know what came before.

# %% [markdown]
# ## 6. The gradient of a key
#
# One vector, two roles: the gradient of `qk` is that of the query plus that of the key, taken back through
# the normalisation. Scaling $q$ does not move its key, so nothing along $q$ comes back, and what is
# across comes back divided by the length. With $g$ the gradient at the key:
#
# $$\frac{\partial L}{\partial q} = \frac{g - (g \cdot k)\, k}{\lVert q \rVert}$$
#
# The fused kernels compute the key's gradient by that formula. Against autograd, both roles at once:

# %%
q = (2 * torch.rand(1, 1, 6, 4, generator=generator, dtype=torch.float64)).requires_grad_()
k = keys_from(q)
towards = torch.rand(6, 6, generator=generator, dtype=torch.float64)  # dL / dscores
(q @ k.mT * towards).sum().backward()

as_query = towards @ k.detach()
g = towards.mT @ q.detach()
as_key = (g - (g * k).sum(-1, keepdim=True) * k) / q.norm(dim=-1, keepdim=True)
print("query's part + key's part = autograd:", torch.allclose(q.grad, as_query + as_key))
print(
    "the key's part is at right angles to q:", torch.allclose((as_key * q).sum(-1), q.new_zeros(6))
)

# %% [markdown]
# What you see: the key's part only *turns* $q$, and turns a long vector less. A very short vector has a very
# large gradient, one of length zero has none: `keys_from` gives it a zero key, and passes nothing back.

# %% [markdown]
# ## 7. Who shares, and who does not
#
# Sharing is for hashing. The Reformer's other layer, attention in a local window, hashes nothing, and has
# separate queries and keys, the usual scale, and lets a token see itself. The authors'
# configurations for text mix the two kinds, so a pointer that one layer cannot express, another can.

# %%
from reformer_core import ReformerConfig, ReformerLM

model = ReformerLM(
    ReformerConfig(vocab_size=64, d_model=128, n_heads=4, attention=("local", "lsh"))
)
for layer in model.layers[:2]:
    attention = layer.f.attention
    sizes = {name: weight.numel() for name, weight in attention.named_parameters()}
    print(f"{type(attention).__name__}: {sizes}, together {sum(sizes.values()):,}")

# %% [markdown]
# What you see: sharing also saves a quarter of the attention's parameters; the paper does not count it
# as a gain. Its Figure 3 (left) draws the loss of models with and without shared query-key over
# training, on text (enwik8) and on images (imagenet64), both with full attention. The curves lie on each
# other; on text the shared model is slightly *faster* at first. That is evidence at one size, on data
# with positions and several layers, as our section 5 would have it; an independent reproduction of
# 2021 did not see the claim confirmed in its shorter runs. Read it as "affordable", not as "free".
#
# Where a separate query and key is needed, as between an encoder and a decoder, use exact attention.

# %% [markdown]
# ## What surprised us
#
# - **The scale is the fact most often got wrong.** The prose of the paper says that it leaves $\sqrt d$ out; a popular
#   implementation has unit keys *and* the division; the authors' code has unit keys only. The three differ
#   by a factor that no test of shapes will find.
# - **"Full attention" is not the same function with and without sharing.** An implementation that falls back to
#   plain dot-product attention for short sequences, with `q = k` unnormalised and oneself visible, has another model
#   there. Our `full_attention` keeps unit keys and oneself last, so that hashing has a limit to be held against.
# - **Cross attention has no shared form.** Users asked two libraries for it; with $q$ from one sequence and $k$ from
#   another, $h(q) = h(k)$ is nobody's gift.
# - **Symmetry costs a causal head almost nothing where every token may have a vector of its own.** We had expected
#   the opposite, until we fitted one. Where vectors come from content it costs the pointer of section 5.

# %% [markdown]
# ## Exercises
#
# ### 1. Unit keys
#
# *Difficulty ●○○○○, importance ●●●●○, about 5 minutes.*
#
# Return the keys of shared query-keys `qk`, "batch heads length d_head": the same directions, length 1. A
# vector of zeros has a key of zeros.
#
# <details><summary>Hint 1</summary>
#
# `qk.norm(dim=-1, keepdim=True)` is every vector's length.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# What is 0 / 0? Divide by something else where the length is 0; the result there is 0 anyway.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import shared_qk as check


def unit_keys(qk):
    """Return keys of length 1 that point where the queries do."""
    raise NotImplementedError


check.unit_keys(unit_keys)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def unit_keys(qk):
#     norm = qk.norm(dim=-1, keepdim=True)
#     return qk / torch.where(norm > 0, norm, 1)
# ```
#
# Adding a small number to the length instead would work, and leave the keys a little short of 1.
#
# </details>

# %% [markdown]
# ### 2. The way back
#
# *Difficulty ●●○○○, importance ●●●○○, about 5 minutes.*
#
# Token i's score for key j is `score`; the lengths of the two vectors are `norm_i` and `norm_j`. What is token
# j's score for key i?
#
# <details><summary>Hint 1</summary>
#
# What do both directions have in common?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Divide by the asker's length to get the cosine. Then let the other one ask.
#
# </details>


# %% tags=["exercise"]
def other_score(score, norm_i, norm_j):
    """Return the score of key i for query j."""
    raise NotImplementedError


check.other_score(other_score)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def other_score(score, norm_i, norm_j):
#     return score / norm_i * norm_j
# ```
#
# The cosine in between is the same both ways.
#
# </details>

# %% [markdown]
# ### 3. Attention, complete
#
# *Difficulty ●●●○○, importance ●●●●●, about 20 minutes.*
#
# Write causal shared-QK attention over all pairs: `qk` is "length d_head", `values` "length d_value". Unit keys,
# no further scale, earlier tokens only, and oneself when there is nobody else.
#
# <details><summary>Hint 1</summary>
#
# Four steps: keys, scores, mask, weights. Only the key is normalised.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.ones(n, n).tril(-1)` is 1 for strictly earlier keys. Which query has none of them? Give it itself.
#
# </details>


# %% tags=["exercise"]
def attend(qk, values):
    """Return the output, "length d_value"."""
    raise NotImplementedError


check.attend(attend)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def attend(qk, values):
#     keys = qk / qk.norm(dim=-1, keepdim=True)
#     visible = torch.ones(len(qk), len(qk)).tril(-1).bool()
#     visible[0, 0] = True
#     return (qk @ keys.T).masked_fill(~visible, -torch.inf).softmax(-1) @ values
# ```
#
# That is `full_attention(qk, values, causal=True)`, to which LSH attention comes the nearer the more rounds it has.
#
# </details>

# %% [markdown]
# ### 4. Through the normalisation
#
# *Difficulty ●●●●○, importance ●●●○○, about 20 minutes.*
#
# `q` and `d_key` are "length d_head": vectors, and the gradient of the loss at their keys $k = q / \lVert q \rVert$.
# Return the gradient at `q` without autograd.
#
# <details><summary>Hint 1</summary>
#
# What happens to the key when q gets longer? So which part of `d_key` has no effect?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Take away the part of `d_key` along the unit key. Then ask how far a small step across turns a vector of
# length 10, and one of length 1.
#
# </details>


# %% tags=["exercise"]
def key_gradient(q, d_key):
    """Take the gradient at the keys back to the vectors."""
    raise NotImplementedError


check.key_gradient(key_gradient)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def key_gradient(q, d_key):
#     norm = q.norm(dim=-1, keepdim=True)
#     key = q / norm
#     return (d_key - key * (key * d_key).sum(-1, keepdim=True)) / norm
# ```
#
# A projection across q, and a division by its length.
#
# </details>

# %% [markdown]
# ### 5. Which patterns can one shared head have?
#
# *Difficulty ●●●●○, importance ●●●●○, about 15 minutes.*
#
# Vectors are free, one for every token, in as many dimensions as you like; oneself is hidden. Say for each, in this
# order, whether nearly all weight can go where it is wanted:
#
# 1. reading back only: every token at the one before it;
# 2. both ways: three tokens in a ring, each at the next;
# 3. both ways: many tokens, all at token 0, the hub (and the hub at any one of them);
# 4. both ways: in pairs, at each other.
#
# Decide first. Then try: `fit(wanted, shared=True, causal=..., d_head=16)` gives the weights.
#
# <details><summary>Hint 1</summary>
#
# With long queries, nearly all weight goes to the nearest key. So ask: can everybody's nearest be the wanted one?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# For the ring, write down which of two cosines has to be larger, token by token. For the hub, think of
# directions around one direction, all at right angles to each other.
#
# </details>

# %% tags=["exercise"]
answer = ...  # four times True or False, such as (True, True, True, True)

check.expressible(answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# answer = (True, False, True, True)
# ```
#
# Reading back, each new token can be put next to whatever it wants. A ring would need each cosine to be larger
# than the one before it, all the way round. Around a hub, spokes at right angles to each other are nearer
# to the hub than to one another. Pairs are what symmetry is made for.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>Which two things does hashing need that separate queries and keys do not give?</summary>
#
# That the best key is the one at the smallest angle (unit keys), and that every token has one bucket for both
# roles (sharing).
#
# </details>
#
# <details><summary>What is the largest score that a query can have?</summary>
#
# Its own length, with a key that points exactly its way.
#
# </details>
#
# <details><summary>Why is there no division by the root of the head's size?</summary>
#
# Unit keys bound the score already; the length of the query is the scale, and it is learned.
#
# </details>
#
# <details><summary>In which sense is shared-QK attention symmetric, and in which not?</summary>
#
# Cosines are. Scores differ by the askers' lengths, and weights also by the company in each softmax.
#
# </details>
#
# <details><summary>Why does symmetry hardly bind a causal head?</summary>
#
# Of the two directions of a pair only one is ever used: the later token looks at the earlier.
#
# </details>
#
# <details><summary>Why can no shared head look around a ring?</summary>
#
# Every cosine between neighbours would have to be larger than the one before it, and the first larger than
# the last.
#
# </details>
#
# <details><summary>A head knows content only, and must look at what followed its last occurrence. What gets in the way?</summary>
#
# The last occurrence itself: it has the same vector, and nothing is nearer.
#
# </details>
#
# <details><summary>Name two ways in which a model gets around that.</summary>
#
# Positions, which give every token a vector of its own; and values with an output that takes away what is
# known. Also layers that do not share, such as the local ones.
#
# </details>
#
# <details><summary>What does the gradient through a key's normalisation look like?</summary>
#
# At right angles to the vector, and the smaller the longer the vector is.
#
# </details>

# %% [markdown]
# ## Next
#
# [Training without remembering](07_reversible.ipynb): attention is cheap now, so what fills the memory are the
# layers' activations.
#
# Further reading: the paper's Sec. 2, Sec. 5 "Effect of sharing QK" and Figure 3.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How many rounds are enough?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/04_how_many_rounds.ipynb)
#
# Hashing misses: two vectors that point nearly the same way can still fall into two buckets. The
# Reformer's answer is to hash again. A **round** is one hash, one sorted order and one set of chunks;
# a token sees whoever *any* round shows it. This lesson measures what another round finds, what it
# costs, what happens to a pair that two rounds find, and when no number of rounds helps.
#
# After this lesson you can
# - predict how many of its near neighbours a token finds with n rounds, and check it by counting;
# - say what a pair weighs that several rounds show, counted once and counted as often as seen;
# - compare more rounds with longer chunks at equal cost, on vectors like yours;
# - recognise the two ways to lose a pair, and say which of them more rounds cure.
#
# Needs: [hashing](02_hashing.ipynb) and [from buckets to attention](03_buckets_to_attention.ipynb). Words:
# [glossary](../docs/glossary.md).
#
# Paper: Sec. 2, "Multi-round LSH attention" (Eq. 6), and the appendix of the same name (Eq. 11-16).
#
# *Runs in about 10 s on two cores.*

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
# ## 1. One round misses
#
# The sixteen tokens again. A word that comes back has nearly the same vector as the first time, so
# its earlier self, its *twin*, is the key that attention wants most. With four buckets and chunks of
# four, which rounds show a token its twin? (The noise is larger here than in the last lesson, so that
# there is something to miss.)

# %%
import torch

from reformer_core import draw_rotations, hash_vectors, plan_chunks
from reformer_viz.lessons import WORDS, sixteen_tokens

qk = sixteen_tokens(noise=0.5)
dice = torch.Generator().manual_seed(1)
rotations = draw_rotations(n_hashes=4, n_heads=1, d_head=8, n_buckets=4, generator=dice)
plan = plan_chunks(hash_vectors(qk, rotations), n_buckets=4, chunk_length=4, causal=True)

twins = [(i, WORDS.index(WORDS[i])) for i in range(16) if WORDS[i] in WORDS[:i]]
sees = plan.visible()[0, 0]  # rounds, queries, keys
for i, j in twins:
    rounds = [r for r in range(4) if sees[r, i, j]]
    print(f"{WORDS[i]:>3} at {i:2}, twin at {j}: shown by rounds {rounds}")

# %% [markdown]
# Each round has directions of its own, so each fails at other pairs. The set that attention uses is
# the **union** over rounds (Eq. 6), where $h^{(r)}$ is the hash of round $r$:
#
# $$P_i = \bigcup_{r=1}^{n} P_i^{(r)}, \qquad P_i^{(r)} = \{\, j : h^{(r)}(q_i) = h^{(r)}(q_j) \,\}$$

# %%
for n in range(1, 5):
    found = sum(bool(sees[:n, i, j].any()) for i, j in twins)
    print(f"the first {n} rounds together show {found} of {len(twins)} twins")

# %% [markdown]
# What you see: the union only grows. How much a round adds depends on its dice, and with so few twins a later
# one can add more than an earlier one. On average it adds less, for it finds again much of what was found
# before: section 2 counts that over many draws.

# %% [markdown]
# ## 2. What theory says
#
# Let $p$ be the chance that one round puts two vectors into one bucket. It depends on the angle
# between them and on the number of buckets, on nothing else. Rounds are independent, so n of them all
# miss with chance $(1-p)^n$, and at least one finds with chance
#
# $$1 - (1 - p)^n .$$
#
# `collision_probability` is $p$, computed. Here is theory beside a count over many draws of rotations
# for one pair, the first *cat* and the last.

# %%
from reformer_core import keys_from
from reformer_viz import collision_probability

pair = qk[:, :, [1, 15]]
first, last = keys_from(pair)[0, 0]  # the same directions, length 1
angle = (first @ last).arccos().rad2deg().item()
chance = collision_probability(angle, n_buckets=8)

heads = pair.expand(1, 2000, 2, 8).contiguous()  # every head draws rotations of its own
many_draws = draw_rotations(8, 2000, 8, n_buckets=8, generator=torch.Generator().manual_seed(5))
one, other = hash_vectors(heads, many_draws)[0].unbind(-1)
print(f"{angle:.0f} degrees apart, 8 buckets")
for n in (1, 2, 4, 8):
    counted = (one == other)[:, :n].any(1).float().mean()
    print(f"{n} rounds: theory {1 - (1 - chance) ** n:.2f}, counted {counted:.2f}")

# %% [markdown]
# The same for every angle: measured points on the lines of theory.

# %%
from reformer_viz import measure_collisions, plot_collisions

collisions = measure_collisions([4, 16, 64], (1, 2, 4, 8), n_pairs=400)
print(collisions.describe(30))
plot_collisions(collisions, row=1)

# %% [markdown]
# What you see: more rounds lift the whole curve, at small angles and at large ones alike. More
# buckets push it down everywhere. So the two are set together: many buckets, to keep strangers out,
# and some rounds, to get the neighbours back.

# %% [markdown]
# ## 3. From pairs to a sequence
#
# What matters is not a pair but a query: which of its *top keys*, those that full attention would
# weigh most, does some round show it? And what share of full attention's weight lies on all keys that
# are shown (`mass_found`)? To measure that we need longer sequences. Two, with queries of the same length: one
# is talk, in which words come back as in our sixteen tokens; in the other every vector is random.
# (`keys_from` makes vectors of length 1.)


# %%
def talk(n_words, length=512, d_head=32, noise=0.25, size=8.0):
    """Make vectors of a text of random words; words that come back are neighbours."""
    generator = torch.Generator().manual_seed(4)
    of_word = torch.rand(n_words, d_head, generator=generator) * 2 - 1
    own = torch.rand(length, d_head, generator=generator) * 2 - 1
    word = torch.randint(n_words, (length,), generator=generator)
    return size * keys_from((of_word[word] + noise * own)[None, None])


structured = talk(n_words=16)
unstructured = talk(n_words=512, noise=9.0)  # hardly anything of the word is left

# %%
from reformer_viz import measure_recall, plot_recall

of_32 = {"n_buckets": 32, "chunk_length": 32, "top_k": 4}
recalls = [
    measure_recall(structured, label="talk", **of_32),
    measure_recall(unstructured, label="random", **of_32),
]
plot_recall(*recalls)

# %% [markdown]
# What you see: circles are top keys that fell into their query's bucket in some round, and they follow
# theory's dashed line. The solid line, those that are in the *window* as well, lies on them or below. On
# talk a few rounds find nearly everything; on random vectors eight are not enough, for there the nearest
# key is not near. **Hashing pays where attention has favourites.** An average over random vectors says
# little about a trained head.
#
# > **Predict, then move.** Make the chunks much shorter: do the circles move? Does the solid line? Then
# > choose *random* vectors, which keep their lengths and lose their directions.

# %%
from reformer_viz import explore_recall

explorer = explore_recall(structured, n_buckets=32, chunk_length=32, top_k=4)
explorer

# %% [markdown]
# By code:

# %%
explorer.controls["chunk_length"].value = 8
print(explorer)
explorer.controls["source"].value = "random"
print(explorer)

# %% [markdown]
# *What you see:* shorter chunks leave the circles where they are, for a bucket knows nothing of chunks, and pull the
# solid line down: the keys are in the bucket and out of reach. With random directions the circles fall as well.
#
# ## 4. One softmax over the union
#
# Rounds can be computed apart, each with a softmax of its own, and merged afterwards. But then a pair
# that two rounds show is counted twice. The paper subtracts for each pair the logarithm of the number
# of rounds that show it, $N_{i,j}$ (Eq. 16), and weighs the rounds by what their softmaxes summed to
# (Eq. 14):
#
# $$o_i = \sum_{r=1}^{n} \exp\!\big(z_i^{(r)} - z_i\big)\, o_i^{(r)}, \qquad
# z_i^{(r)} = \log \sum_{j \in P_i^{(r)}} \exp\big(q_i \cdot k_j - \log N_{i,j}\big), \qquad
# z_i = \log \sum_r \exp z_i^{(r)}$$
#
# Here $k_j$ is the key, $q_j$ at unit length, and $o_i^{(r)}$ is the output of round $r$ alone, a softmax of
# $q_i \cdot k_j - \log N_{i,j}$ over its own pairs. In code, from the plan of our sixteen tokens, against
# `lsh_attention`:

# %%
from reformer_core import lsh_attention

values = torch.rand(1, 1, 16, 4, generator=torch.Generator().manual_seed(6))
shown, times_seen = plan.visible(), plan.times_seen()[:, :, None]
scores = (qk @ keys_from(qk).mT)[:, :, None] - times_seen.clamp(min=1).log()
scores = scores.masked_fill(~shown, -torch.inf)

of_round = scores.softmax(-1).nan_to_num(0) @ values[:, :, None]  # 0 where a round shows nobody
z_of_round = scores.logsumexp(-1, keepdim=True)
z = z_of_round.logsumexp(2, keepdim=True)
merged = ((z_of_round - z).exp() * of_round).sum(2)

alone = z[:, :, 0] == -torch.inf  # seen by no round: a token then has itself
merged = torch.where(alone, values, merged)
same = torch.allclose(merged, lsh_attention(qk, values, plan), atol=1e-6)
print("merged rounds are lsh_attention:", same)
print("pairs seen by", {n: int((times_seen == n).sum()) for n in (1, 2, 3, 4)}, "rounds")

# %% [markdown]
# And if one forgets $\log N_{i,j}$? Then a pair weighs as many times as it is seen. Two widely used
# implementations do that; here it is `count_repeats=True`. One would hope that with very many rounds,
# when everybody has seen everybody, the difference goes away.
#
# > **Predict.** Error means: the output's distance from full attention's, as a share of that one's
# > length. Which of the two errors goes to zero?

# %%
few = unstructured[:, :, :128]
their_values = torch.rand(few.shape, generator=torch.Generator().manual_seed(7)) * 2 - 1
errors = measure_recall(
    few, their_values, max_hashes=256, n_buckets=8, chunk_length=32, top_k=4, label="128 tokens"
)
for name in ("error", "error_of_repeats"):
    curve = errors.curve(name).mean
    shown = ", ".join(f"{n}: {curve[list(errors.n_hashes).index(n)]:.2f}" for n in (1, 8, 64, 256))
    print(f"{name} by rounds: {shown}")
plot_recall(errors)

# %% [markdown]
# What you see: counted once, the error goes to zero. Counted as often as seen, it stops above zero,
# however many rounds there are.
#
# Why? After n rounds $N_{i,j}$ is about $n\,p_{ij}$, where $p_{ij}$ is the chance that *one* round
# shows the pair. The factor $n$ falls out of the softmax, $p_{ij}$ stays: what one approaches is
# $\operatorname{softmax}_j(q_i \cdot k_j + \log p_{ij})$, attention that likes near keys twice. That is
# another attention and not a noisy one; a model that was trained with it is used to it. But it is no
# approximation of full attention, and its outputs move when the number of rounds is changed.

# %%
from reformer_core import full_attention
from reformer_viz.measure.collisions import collision_probabilities

thousand = draw_rotations(1000, 1, 32, n_buckets=8, generator=torch.Generator().manual_seed(2))
many = plan_chunks(hash_vectors(few, thousand), n_buckets=8, chunk_length=128, causal=True)
repeated = lsh_attention(few, their_values, many, count_repeats=True)[0, 0]

cosine = (keys_from(few) @ keys_from(few).mT)[0, 0].clamp(-1, 1)
of_pairs = torch.from_numpy(collision_probabilities(cosine.arccos().rad2deg().numpy(), 8)).float()
favoured = (few @ keys_from(few).mT)[0, 0] + of_pairs.log()
favoured = favoured.masked_fill(torch.ones(128, 128).triu().bool(), -torch.inf)
limit = favoured[1:].softmax(-1) @ their_values[0, 0]
full = full_attention(few, their_values, causal=True)[0, 0]


def off(a, b):
    return ((a - b).norm() / b.norm()).item()


near, far = off(repeated[1:], limit), off(repeated[1:], full[1:])
print(
    f"1,000 rounds with repeats: {near:.2f} from softmax(q k + log p), {far:.2f} from full attention"
)

# %% [markdown]
# What you see: with repeats, many rounds have arrived, but elsewhere.

# %% [markdown]
# ## 5. What a round costs, and what else the cost could buy
#
# A round computes the scores of every query against its window of two chunks, so rounds times chunk
# length is the work. With the paper's rule the number of buckets goes with it: `n_buckets` = 2
# `length / chunk_length`, so that a bucket fills half a chunk. The same work can be one round of long
# chunks or many rounds of short ones. Which finds more?

# %%
from reformer_viz import measure_sparsity


def compare(name, vectors):
    print(f"{name}: rounds x chunk length, scores as a share of all, top keys and weight found")
    for rounds, chunk_length in ((1, 128), (2, 64), (4, 32), (8, 16), (16, 8)):
        rule = {"n_buckets": 1024 // chunk_length, "chunk_length": chunk_length}
        recall = measure_recall(vectors, max_hashes=rounds, top_k=4, **rule)
        drawn = draw_rotations(rounds, 1, 32, rule["n_buckets"], torch.Generator().manual_seed(0))
        planned = plan_chunks(hash_vectors(vectors, drawn), causal=True, **rule)
        found, mass = recall.curve("found").mean[-1], recall.curve("mass_found").mean[-1]
        cost = measure_sparsity(planned).cost
        print(f"  {rounds:2} x {chunk_length:3}: {cost:4.0%} {found:8.0%} {mass:8.0%}")


compare("talk", structured)
compare("random", unstructured)

# %% [markdown]
# What you see: the cost, the first percentage, is nearly the same in every row. At equal cost several rounds
# of shorter chunks find more than one round of long chunks does. On talk that ends where chunks get shorter
# than the groups of neighbours: in the last row weight is lost again. On random vectors nothing is found
# cheaply, whatever one does. And rounds cost what this table leaves out: a hash and a sort each, and
# memory for their buckets, which the backward pass needs. A few rounds of moderate chunks is where the
# paper ends up as well.
#
# And at lengths like these full attention is quick and misses nothing: then the right number of rounds
# is none.

# %% [markdown]
# ## 6. When no number of rounds helps
#
# There are two ways to lose a pair, and rounds cure only the first.
#
# - *Different buckets.* Chance, and another round has another chance.
# - *The same bucket, too far apart in it.* A bucket longer than the window. If many tokens point the
#   same way, as every *the* does, or as padding would, they share a bucket in *every* round, in the
#   same order, and the same pairs are too far apart every time.
#
# Let the first word make up three quarters of the text, and hardly differ from one time to the next:

# %%
crowded = structured.clone()
crowd = torch.rand(512, generator=torch.Generator().manual_seed(3)) < 0.75
crowded[0, 0, crowd] = crowded[0, 0, 0] + 0.01 * crowded[0, 0, crowd]

of_crowd = measure_recall(crowded, label="crowded", **of_32)
print(of_crowd.describe())
plot_recall(of_crowd)

# %%
from reformer_viz import measure_bucket_load

eight = draw_rotations(8, 1, 32, 32, torch.Generator().manual_seed(0))
in_32 = plan_chunks(hash_vectors(crowded, eight), n_buckets=32, chunk_length=32, causal=True)
print(measure_bucket_load(in_32).describe())

# %% [markdown]
# What you see: nearly every top key is in its query's bucket, and the solid line stays far below and soon
# stops rising. The cures are others: longer chunks; more buckets only if the crowd is not too tight to be split;
# a head that does not put most of its tokens in one place. Always *count* lost pairs; attention itself
# goes on without a word.

# %% [markdown]
# ## What surprised us
#
# - **More rounds do not converge, in most code.** The paper counts a pair once; the authors' later code and the two
#   reimplementations that most people use count repeats. We expected noise that averages out, and found a limit that is
#   another attention (section 4).
# - **A key can be seen twice in a single round.** Where all rounds are laid in one long list of chunks,
#   the first chunk of a round looks back into the last chunk of the round before. The next lesson
#   comes back to it; here nothing wraps around, so a round shows a pair once or not at all.
# - **A bucket longer than the window loses pairs silently**, and a user of one library could not
#   believe that this was intended. It is: fixed chunks are what makes the cost predictable.
# - **The number of rounds is not part of the weights.** Train with some, evaluate with more: the
#   paper's Table 2 does just that, and so will [the lesson on training](09_train_duplicate.ipynb).

# %% [markdown]
# ## Exercises
#
# ### 1. The share that is seen
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Given a causal plan, return the share of all pairs (a query and an *earlier* key, in every sequence
# and head) that at least one round shows.
#
# <details><summary>Hint 1</summary>
#
# `plan.times_seen()` counts the rounds that show each pair; its shape is "batch heads length length".
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# How many earlier keys do the queries of one sequence have, all together? The first has none.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import rounds as check


def share_seen(plan):
    """Return the share of pairs that some round shows, as a float."""
    raise NotImplementedError


check.share_seen(share_seen)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def share_seen(plan):
#     seen = plan.times_seen() > 0
#     batch, heads, length, _ = seen.shape
#     pairs = batch * heads * length * (length - 1) // 2
#     return seen.sum().item() / pairs
# ```
#
# The comparison makes the union: a pair is in it or not, however often it was seen.
#
# </details>

# %% [markdown]
# ### 2. Every copy counts
#
# *Difficulty ●●●○○, importance ●●●●○, about 15 minutes.*
#
# What `count_repeats=True` computes. Given `scores`, "length length", and `visible`, True or False in the
# shape "rounds length length", return the weights of *one* softmax in which a pair weighs as many times as
# rounds show it. Every query sees somebody. Scores may be large.
#
# <details><summary>Hint 1</summary>
#
# A pair that three rounds show stands three times in the sum of $\exp(s)$: $3 \exp(s) = \exp(s + ?)$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `visible.sum(0)` counts the rounds, and the logarithm of 0 is minus infinity, which is just what an unseen pair
# needs.
#
# </details>


# %% tags=["exercise"]
def every_copy(scores, visible):
    """Return the weights, "length length", where each round's copy of a pair counts."""
    raise NotImplementedError


check.every_copy(every_copy)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def every_copy(scores, visible):
#     return (scores + visible.sum(0).log()).softmax(-1)
# ```
#
# With the paper's $-\log N_{i,j}$ in every copy's score the two logarithms cancel, and each pair counts once.
#
# </details>

# %% [markdown]
# ### 3. Lost for good
#
# *Difficulty ●●●○○, importance ●●●●○, about 15 minutes.*
#
# Section 6, counted. Given a causal plan, how many pairs (a query and an earlier key, in every sequence and
# head) share a bucket in at least one round, and are shown by none? `plan.buckets` is "batch heads rounds
# length".
#
# <details><summary>Hint 1</summary>
#
# `buckets[..., :, None] == buckets[..., None, :]` says who shares a bucket with whom, in every round.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Ask `any(2)` of that, keep the earlier keys (`tril(-1)` of a matrix of True), and then those pairs that
# `plan.times_seen()` counts 0 times.
#
# </details>


# %% tags=["exercise"]
def lost_for_good(plan):
    """Return a whole number of pairs."""
    raise NotImplementedError


check.lost_for_good(lost_for_good)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def lost_for_good(plan):
#     buckets = plan.buckets
#     length = buckets.shape[-1]
#     together = (buckets[..., :, None] == buckets[..., None, :]).any(2)
#     earlier = torch.ones(length, length, dtype=torch.bool).tril(-1)
#     return int((together & earlier & (plan.times_seen() == 0)).sum())
# ```
#
# The hash found these pairs, and the window lost them. Another round with buckets as long is likely to lose them
# again; longer chunks are not.
#
# </details>

# %% [markdown]
# ### 4. Rounds or chunks?
#
# *Difficulty ●●●●○, importance ●●●●○, about 20 minutes.*
#
# A round multiplies each token's vector with `n_buckets / 2` directions to hash it, and with the keys of its
# window, two chunks of them. By the paper's rule `n_buckets = 2 * length / chunk_length`. Return
# `(chunk_length, n_hashes)`, with a chunk length out of 8, 16, 32, 64, 128, 256, such that a pair at `angle` shares
# a bucket in some round with a probability of at least `wanted`, with the fewest products a token in all rounds
# together. (What the window loses is left out.)
#
# <details><summary>Hint 1</summary>
#
# First, for one chunk length: how many rounds does it need? `collision_probability(angle, n_buckets)` is the
# chance of one round, and all $n$ rounds miss with $(1 - p)^n$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Then its products: `n_hashes * (n_buckets // 2 + 2 * chunk_length)`. `min` over a list of tuples that begin with
# the cost does the rest.
#
# </details>


# %% tags=["exercise"]
def cheapest(angle, length, wanted):
    """Return (chunk_length, n_hashes)."""
    raise NotImplementedError


check.cheapest(cheapest)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def cheapest(angle, length, wanted):
#     choices = []
#     for chunk_length in (8, 16, 32, 64, 128, 256):
#         n_buckets = 2 * length // chunk_length
#         p, n_hashes = collision_probability(angle, n_buckets), 1
#         while 1 - (1 - p) ** n_hashes < wanted:
#             n_hashes += 1
#         products = n_hashes * (n_buckets // 2 + 2 * chunk_length)
#         choices.append((products, chunk_length, n_hashes))
#     return min(choices)[1:]
# ```
#
# Short chunks need only a few more rounds than long ones, until the directions of their many buckets cost more
# than the keys. (Factored buckets, lesson 02, save directions and move the best chunk further down.)
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>What is a round, and what do two rounds share?</summary>
#
# One hash with directions of its own, one sorted order, one set of chunks. They share the vectors,
# the number of buckets and the rule of the window; nothing of one looks into the other.
#
# </details>
#
# <details><summary>One round finds a pair with chance 1/2. How many rounds for at least 90 %?</summary>
#
# Four: the misses halve with each round, and one sixteenth is the first below a tenth.
#
# </details>
#
# <details><summary>Why does recall stop below 100 % on some data, whatever the number of rounds?</summary>
#
# Buckets longer than the window: their tokens are together in every round, in the same order, and the
# same pairs are too far apart each time.
#
# </details>
#
# <details><summary>What is $N_{i,j}$, and what is it for?</summary>
#
# The number of rounds that show query i the key j. Subtracting its logarithm from the score makes the
# pair's copies weigh as much together as the pair once.
#
# </details>
#
# <details><summary>What does attention approach that counts repeats, as rounds grow?</summary>
#
# A softmax of the score plus the log of the chance that one round shows the pair: not full attention.
#
# </details>
#
# <details><summary>Why do measurements on random vectors make hashing look bad?</summary>
#
# In many dimensions random vectors are nearly at right angles; the nearest of them is not near, and a
# hash by direction cannot tell it from the others. Full attention's weight is spread as well.
#
# </details>
#
# <details><summary>Twice the rounds or twice the chunk length: what do they cost, what do they cure?</summary>
#
# About the same number of scores. Rounds cure pairs in different buckets; longer chunks cure pairs
# that are in one bucket and too far apart.
#
# </details>
#
# <details><summary>How are the outputs of rounds weighed against each other?</summary>
#
# By the sum of exp(score) in each, that is by a softmax over their log totals (Eq. 14).
#
# </details>

# %% [markdown]
# ## Next
#
# [Does it peek?](05_does_it_peek.ipynb) Sorting moves tokens about, so "earlier" needs care; and the
# paper's chunks let the future in by a back door.
#
# Further reading: the paper's Sec. 2 and its appendix "Multi-round LSH attention"; Table 2 in Sec. 2 for
# training with some rounds and evaluating with others; Figure 4 for more rounds on images.

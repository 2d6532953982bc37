# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From buckets to attention: what is sorted, cut and compared?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/03_buckets_to_attention.ipynb)
#
# Every token has a bucket now. To attend within buckets one could compare all pairs and throw most away, but
# that would be quadratic again. The Reformer *sorts* the tokens by bucket, *cuts* the sorted sequence into
# chunks of equal length, and compares inside a small window only. This lesson follows sixteen tokens through
# every step, then writes the whole rule down as two numbers for each token, and checks that the fast attention
# which uses them is exact.
#
# After this lesson you can
# - sort, cut and say who sees whom by hand, for any buckets;
# - read a `BucketPlan`, and explain why two numbers a token are enough;
# - say in which sense LSH attention is exact, and verify it;
# - merge what several rounds computed apart into one softmax.
#
# Needs: [hashing](02_hashing.ipynb). Words: [glossary](../docs/glossary.md).
#
# Paper: Sec. 2, "LSH attention" (Eq. 2-6), and the appendix on rounds (Eq. 11-16).
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
# ## 1. Sort
#
# A token may look at its bucket-mates (Eq. 4): with $h$ the hash, and $j$ earlier than $i$,
#
# $$P_i = \{\, j : h(q_i) = h(k_j) \,\}$$
#
# Sorting by bucket puts mates next to each other. Ties stay in reading order: the sort is *stable*. A place in
# the text is called a **position**, a place in sorted order a **slot**.

# %%
import torch

from reformer_core import draw_rotations, hash_vectors, plan_chunks
from reformer_viz.lessons import WORDS, sixteen_tokens

qk = sixteen_tokens()
rotations = draw_rotations(2, 1, 8, 4, torch.Generator().manual_seed(1))
buckets = hash_vectors(qk, rotations)  # batch, heads, rounds, length
plan = plan_chunks(buckets, n_buckets=4, chunk_length=4, causal=True)

of_round = buckets[0, 0, 0]
order = of_round.argsort(stable=True)
print("the plan sorts alike:", torch.equal(order, plan.order[0, 0, 0].long()))
for chunk in range(4):
    slots = order[4 * chunk : 4 * chunk + 4].tolist()
    print(f"chunk {chunk}:", "  ".join(f"{WORDS[p]}{p} (bucket {of_round[p]})" for p in slots))

# %% [markdown]
# ## 2. Cut, and look one chunk back
#
# Buckets are unequally long, and computers like equal pieces: so the sorted sequence is cut into chunks of a
# fixed length, wherever the borders fall. A border may divide a bucket. Therefore a token sees its own chunk *and
# the one before* (Eq. 5), together its **window**, and of these only its bucket-mates, and of these only earlier positions. Every rule
# is one line:

# %%
slot = order.argsort()  # where each position went: the inverse
chunk_of = slot // 4
back = chunk_of[:, None] - chunk_of[None, :]  # queries down, keys across

same_bucket = of_round[:, None] == of_round[None, :]
near = (back == 0) | (back == 1)
earlier = torch.ones(16, 16, dtype=torch.bool).tril(-1)
by_hand = same_bucket & near & earlier

print("the plan shows the same pairs:", torch.equal(by_hand, plan.visible()[0, 0, 0]))
print(
    "pairs in one bucket:", int((same_bucket & earlier).sum()), "of them seen:", int(by_hand.sum())
)

# %% [markdown]
# Follow it step by step. The slider *step* goes through hash, sort, cut and look; point at a token, or use the
# arrow keys, and its bucket-mates light up: those that it sees, and those that the window lost. (The explorer
# draws rotations of its own, so its buckets are others than above.)
#
# > **Predict, then move.** Which tokens see nobody at all in this round? Then make the chunks longer: can a
# > token see *less* in longer chunks?

# %%
from reformer_viz import explore_bucketing

steps = explore_bucketing(qk[0, 0], n_buckets=4, n_hashes=2, chunk_length=4, labels=WORDS)
steps

# %%
for chunk_length in (4, 8, 16):
    steps.place = {"chunk_length": chunk_length}
    print(steps, "\n")

# %% [markdown]
# *What you see:* a token sees nobody exactly when it is the first of its bucket. Every other one has a mate in
# the slot just before its own, and that is in the window. With one chunk of sixteen nothing is lost. Shorter
# chunks cost less and lose pairs of long buckets. Doubling a chunk never hides a pair, but other lengths can: a
# token looks back to the beginning of its own chunk and one chunk more, so slot 11 reaches 7 slots back with
# chunks of 4, and only 6 with chunks of 5. The chunk rule has another price, which lesson 05 looks at: where the
# borders fall depends on all tokens, later ones too.
#
# ## 3. Two numbers a token: the plan
#
# Look at a row of the sorted picture: what a slot sees is one *run* of slots without gaps. It begins where its
# bucket begins, or where the chunk before begins, whichever is later; and it ends just before the slot, since
# mates stand in reading order. So the whole of "who sees whom" is `first` and `last`, and `order` to know who
# stands where. No matrix of length times length exists anywhere.

# %%
first, last = plan.first[0, 0, 0], plan.last[0, 0, 0]
print("slot  token  bucket  sees slots  and so the tokens")
for s in range(16):
    run = range(int(first[s]), int(last[s]) + 1)
    seen = " ".join(f"{WORDS[order[k]]}{order[k]}" for k in run) or "nobody"
    name, bucket = f"{WORDS[order[s]]}{order[s]}", of_round[order[s]]
    print(f"{s:4}  {name:>5}  {bucket:6}  {f'{first[s]}-{last[s]}' if run else '-':>10}  {seen}")

# %% [markdown]
# This value, the `BucketPlan`, is what attention consumes, what the backward pass replays, and what every
# picture of this course is drawn from.
#
# ## 4. Attend: exact over what the plan shows
#
# For $i$ and the positions $P_i$ that it sees, attention is (Eq. 2)
#
# $$o_i = \sum_{j \in P_i} \exp(q_i \cdot k_j - z_i)\, v_j, \qquad
# z_i = \log \sum_{j \in P_i} \exp(q_i \cdot k_j)$$
#
# and with several rounds $P_i$ is the union of what they show (Eq. 6): a pair counts once, however many rounds
# see it. The naive version builds the matrix; `lsh_attention` never does. They agree:

# %%
from reformer_core import dense_lsh_attention, keys_from, lsh_attention

values = torch.rand(1, 1, 16, 8, generator=torch.Generator().manual_seed(2))
seen = plan.visible().any(dim=2)  # in any round

scores = qk @ keys_from(qk).mT
alone = ~seen.any(-1, keepdim=True)  # sees nobody: then, and only then, it looks at itself
seen_or_self = seen | (alone & torch.eye(16, dtype=torch.bool))
naive = scores.masked_fill(~seen_or_self, -torch.inf).softmax(-1) @ values

fast = lsh_attention(qk, values, plan)
print("fast and naive agree:", torch.allclose(fast, naive, atol=1e-6))
print("and so does the package's definition:",
      torch.allclose(fast, dense_lsh_attention(qk, values, plan), atol=1e-6))  # fmt: skip
print("tokens that see nobody, and look at themselves:", alone[0, 0, :, 0].nonzero()[:, 0].tolist())

# %% [markdown]
# So "approximate" means one thing only: pairs that no round shows are left out. Over the pairs that are shown,
# nothing is approximated, forward or backward.
#
# ## 5. Rounds computed apart
#
# An implementation computes one round after the other, each with a softmax of its own: outputs $o_i^{(r)}$ and
# log-sums $z_i^{(r)}$. If every pair is counted in one round only, their weighted sum is the union's softmax
# (Eq. 14). The paper instead lets a pair that $N_{ij}$ rounds see count $1/N_{ij}$ in each, by subtracting
# $\log N_{ij}$ from its score (Eq. 16), which gives the same total:
#
# $$o_i = \sum_r \exp(z_i^{(r)} - z_i)\, o_i^{(r)}, \qquad z_i = \log \sum_r \exp z_i^{(r)}$$

# %%
per_round = plan.visible()[0, 0]
once = per_round & (per_round.cumsum(0) == 1)  # in the first round that sees it
masked = scores[0, 0].masked_fill(~once, -torch.inf)  # rounds, queries, keys
z = masked.logsumexp(-1)
outputs = (masked - z[..., None]).exp().nan_to_num() @ values[0, 0]
merged = (z.softmax(0).nan_to_num()[..., None] * outputs).sum(0)

others = ~alone[0, 0, :, 0]
agree = torch.allclose(merged[others], fast[0, 0, others], atol=1e-6)
print("two rounds, merged, are one softmax over the union:", agree)
print("pairs per round:", per_round.sum((1, 2)).tolist(), "together:", int(seen.sum()))

# %% [markdown]
# ## 6. On many tokens
#
# The same pictures for 256 made-up tokens in 16 buckets. Left, in sorted order, what each slot sees hugs the
# diagonal, in steps of the window; right, in reading order, the same pairs are scattered all over the square.
# That is what sorting does: it turns scattered work into a narrow band.
#
# > **Predict, then move.** Twice as many buckets: does the band get narrower, or only emptier? What happens to
# > it with longer chunks?

# %%
many = explore_bucketing(n_tokens=256, n_buckets=16, n_hashes=2, chunk_length=16)
many

# %%
many.controls["n_buckets"].value = 32
print(many)

# %% [markdown]
# *What you see:* twice as many buckets make the band emptier, not narrower. Its width is that of the window,
# which the chunks decide: longer chunks widen it.
#
# ## 7. What long buckets lose
#
# The first slot of a chunk looks back one chunk length, the last one nearly two. So a bucket of up to
# `chunk_length + 1` tokens loses no pair, wherever the borders fall; a longer one may lose pairs, and one longer
# than two chunks must, in every round. Count them before you trust a plan: left, how
# many tokens the buckets hold; in the middle, the longest buckets with their pairs, seen and lost; right, which
# share of its pairs each bucket loses.
#
# > **Predict, then move.** 1,024 tokens in 16 buckets, with chunks of 16: what lowers the *share* of pairs that is
# > lost most, four times the rounds, twice the buckets, or chunks of twice the length?

# %%
from reformer_viz import explore_bucket_load

load = explore_bucket_load(n_tokens=1024, n_buckets=16, n_hashes=2, chunk_length=16)
load

# %%
for control, value in (("n_hashes", 8), ("n_buckets", 32), ("chunk_length", 32)):
    before = load.controls[control].value
    load.controls[control].value = value
    print(f"{control} {value}: {load}\n")
    load.controls[control].value = before

# %% [markdown]
# *What you see:* longer chunks help most. More rounds hash again, into buckets about as long, and each of them loses
# about the same share. Twice as many buckets do little here, since the made-up text has few different letters, each of them one direction: tokens of one
# letter stay together, however finely the directions are cut. (Turn *noise* up, and more buckets do help.)
#
# ## What surprised us
#
# - **Look-back that wraps.** In both well-known implementations the first chunk looks back at the last one, and
#   all rounds lie end to end, so that a round's first chunk looks into the round before. Here the first chunk
#   looks at itself only.
# - **A bucket longer than the window loses pairs, silently.** The paper assumes that this is rare; with two buckets
#   or repetitive text it is not. Here a plan can say how many (section 7).
# - **Self last, by a number.** Implementations subtract 100,000 from a token's score with itself. In float32 such a
#   score has few digits left, and shares of rounds that use it come out wrong. Here it is decided by logic.
# - **The sort must be stable**, and where one library's sort was not, it added the position to the key. Forget
#   that, and a bucket's tokens come in any order: runs no longer end where the past ends.
#
# ## Exercises
#
# ### 1. Sort
#
# *Difficulty ●○○○○, importance ●●●○○, about 5 minutes.*
#
# Write `sorted_positions(buckets)`: for every slot the position that stands there, ties in reading order.
#
# <details><summary>Hint 1</summary>
#
# Sorting gives values, argsort gives places.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `stable=True`.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import buckets as check


def sorted_positions(buckets):
    """Return the position at every slot."""
    raise NotImplementedError


check.sorted_positions(sorted_positions)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def sorted_positions(buckets):
#     return buckets.argsort(stable=True)
# ```
#
# </details>

# %% [markdown]
# ### 2. Who sees whom?
#
# *Difficulty ●●●○○, importance ●●●●●, about 15 minutes.*
#
# Write `visible(buckets, chunk_length)` for one round, as a matrix of True and False: queries down, keys across,
# causal, own chunk and the one before, bucket-mates only.
#
# <details><summary>Hint 1</summary>
#
# You need the slot of each position: the inverse of exercise 1, which is its argsort.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Four conditions: same bucket, same chunk or one back, earlier position. Compare a column with a row.
#
# </details>


# %% tags=["exercise"]
def visible(buckets, chunk_length):
    """Return True where a query (row) sees a key (column)."""
    raise NotImplementedError


check.visible(visible)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def visible(buckets, chunk_length):
#     position = torch.arange(len(buckets))
#     chunk = buckets.argsort(stable=True).argsort() // chunk_length
#     back = chunk[:, None] - chunk[None, :]
#     mates = buckets[:, None] == buckets[None, :]
#     return mates & (back >= 0) & (back <= 1) & (position[:, None] > position[None, :])
# ```
#
# </details>

# %% [markdown]
# ### 3. Where does a run begin?
#
# *Difficulty ●●●○○, importance ●●●○○, about 15 minutes.*
#
# Write `first_slots(buckets, chunk_length)`: for every *slot* the first slot of the run that it sees.
#
# <details><summary>Hint 1</summary>
#
# Where does the slot's bucket begin in sorted order? `torch.searchsorted(sorted, values)` finds it.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Where does the chunk before the slot's begin? And which of the two counts?
#
# </details>


# %% tags=["exercise"]
def first_slots(buckets, chunk_length):
    """Return the first slot that every slot sees."""
    raise NotImplementedError


check.first_slots(first_slots)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def first_slots(buckets, chunk_length):
#     in_order = buckets.sort().values
#     bucket_begins = torch.searchsorted(in_order, in_order)
#     chunk = torch.arange(len(buckets)) // chunk_length
#     window_begins = ((chunk - 1) * chunk_length).clamp(min=0)
#     return torch.maximum(bucket_begins, window_begins)
# ```
#
# </details>

# %% [markdown]
# ### 4. Merge rounds
#
# *Difficulty ●●●○○, importance ●●●●○, about 15 minutes.*
#
# Write `merge(outputs, z)`: `outputs` is "rounds length d", what each round's own softmax gave; `z` is "rounds
# length", each round's log-sum-exp, minus infinity where a round shows nobody. Every pair is in one round only.
# Scores may be large.
#
# <details><summary>Hint 1</summary>
#
# A round's share of a token's weight is $\exp(z^{(r)} - z)$. These shares add up to 1.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Which function of torch computes $\exp(z^{(r)}) / \sum \exp(z^{(r)})$ without overflow?
#
# </details>


# %% tags=["exercise"]
def merge(outputs, z):
    """Return the softmax over the union of the rounds: "length d"."""
    raise NotImplementedError


check.merge(merge)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def merge(outputs, z):
#     return (z.softmax(0)[..., None] * outputs).sum(0)
# ```
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>What is the difference between a position and a slot?</summary>
#
# A position is a place in the text, a slot a place in sorted order.
#
# </details>
#
# <details><summary>Why are chunks equally long, and buckets not?</summary>
#
# Equal pieces make one large regular computation. Buckets are as long as the hash makes them.
#
# </details>
#
# <details><summary>Why does a token look at the chunk before?</summary>
#
# Because a border may run through its bucket.
#
# </details>
#
# <details><summary>Why are two numbers a slot enough to say whom it sees?</summary>
#
# Mates are neighbours in sorted order, in reading order among themselves, so those that are seen are a run.
#
# </details>
#
# <details><summary>When does a token look at itself?</summary>
#
# Only when no round shows it anybody else.
#
# </details>
#
# <details><summary>In which sense is LSH attention exact?</summary>
#
# It is the softmax over the pairs that are shown, with no other approximation.
#
# </details>
#
# <details><summary>What must hold, so that rounds can be merged into one softmax?</summary>
#
# Each pair is counted in one round only.
#
# </details>
#
# ## Next
#
# [How many rounds are enough?](04_how_many_rounds.ipynb) Further reading: Sec. 2 of the paper and its Figure 2,
# which draws the steps of this lesson.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fast: what does the machine do, and when is exact attention the better choice?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/11_fast.ipynb)
#
# "$O(l \log l)$ instead of $O(l^2)$" says how a cost grows, not how large it is. This lesson counts what LSH
# attention really computes: pairs, products, a hash, a sort. Then it measures both attentions on the machine
# that you sit at, finds the length from which on hashing pays, and says when it does not.
#
# After this lesson you can
# - count the pairs and the operations of either attention, exactly;
# - predict the length at which they cost the same, and check it by a measurement;
# - read a growth exponent off a log-log plot, and say what spoils it;
# - name what in LSH attention takes time beside the products, and where in the code it is dealt with;
# - choose: full attention, a local window, or LSH.
#
# Needs: [from buckets to attention](03_buckets_to_attention.ipynb) and
# [how many rounds](04_how_many_rounds.ipynb). Words: [glossary](../docs/glossary.md).
#
# Paper: Sec. 2, Table 1, and Sec. 5 (Figure 5, right).
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
# ## 1. Count the pairs
#
# A causal query of full attention sees all earlier keys, on average half of the sequence. A query of LSH
# attention sees a piece of its bucket in each round. With the number of buckets in proportion to the length, as
# the paper chooses it (two for each chunk), buckets stay about as long as they were, and so does what a query sees.
# These numbers are exact, counted from plans without ever building length times length. First the course's sixteen
# tokens, where one can still count by hand:

# %%
import torch

from reformer_core import draw_rotations, hash_vectors, plan_chunks
from reformer_viz.lessons import sixteen_tokens

rotations = draw_rotations(1, 1, 8, 4, torch.Generator().manual_seed(1))
few = plan_chunks(hash_vectors(sixteen_tokens(), rotations), chunk_length=4, causal=True)
in_sight = (
    few.last - few.first + 1
)  # of each slot, in one round; an empty run has first > last by one
print("keys in sight of each slot:", in_sight[0, 0, 0].tolist())
print(f"together {int(in_sight.sum())} of the {16 * 15 // 2} pairs that full attention computes")

# %% [markdown]
# And now texts that are long enough to matter:

# %%
from reformer_core.hashing import default_n_buckets, factors_of

N_HASHES, CHUNK = 4, 64


def plan_of(length):
    """Hash uniform random vectors as a model with the default number of buckets would."""
    n_buckets = default_n_buckets(length, CHUNK)  # 2 * length / CHUNK, above 128 as a product
    generator = torch.Generator().manual_seed(length)
    qk = torch.rand(1, 1, length, 64, generator=generator) * 2 - 1
    drawn = draw_rotations(N_HASHES, 1, 64, n_buckets, generator)
    buckets = hash_vectors(qk, drawn, n_buckets)
    return plan_chunks(buckets, chunk_length=CHUNK, n_buckets=n_buckets, causal=True)


print(" length   pairs: full          LSH   a query: full   LSH   equal from")
for length in (1024, 2048, 4096, 8192, 16384):
    plan = plan_of(length)
    pairs = int((plan.last - plan.first + 1).sum())
    full = length * (length - 1) // 2
    a_query = pairs / length
    equal_from = next(size for size in range(1, length) if (size - 1) / 2 >= a_query)
    print(f"{length:7,} {full:13,} {pairs:12,}", end="")
    print(f" {full / length:15.0f} {a_query:5.0f} {equal_from:12,}")

# %% [markdown]
# *What you see:* from line to line the length doubles and full attention's pairs grow fourfold. LSH attention's
# grow a little faster than the length: random vectors do not fill all buckets evenly, the less so the more
# directions there are. (Above 128 buckets a bucket is two choices among fewer directions each: hence the step back
# after 4,096 tokens.) A trained head fills its buckets less evenly still ([lesson 10](10_train_text.ipynb)): then more
# of a window is in sight, and long buckets lose pairs. If a pair cost the same in both, they would be level at the length in the last column. It does not
# cost the same.
#
# ## 2. Count the work
#
# With pairs of width $d$, a training step needs seven products: two forward (scores, and the weighted sum) and
# five backward (scores once more, two for the gradients of weights and values, two for queries and keys). Each
# multiply-add is two operations. But a machine multiplies *tiles*, not pairs: 64 queries with 128 keys at a time.
# What a tile computes of pairs that nobody sees is thrown away:

# %%
D_HEAD = 64
per_pair = 2 * 7 * D_HEAD
length = 16384
plan = plan_of(length)
pairs = int((plan.last - plan.first + 1).sum())
tiles = N_HASHES * length * 2 * CHUNK
full = length * (length - 1) // 2

for name, amount in (
    ("full", full),
    ("LSH, whole tiles", tiles),
    ("LSH, pairs that are seen", pairs),
):
    print(f"{name:<25} {per_pair * amount / 1e9:8.1f} billion operations a head")
print(f"of a whole tile {pairs / tiles:.0%} is visible")

factors = factors_of(default_n_buckets(length, CHUNK))
for name, directions in (
    (f"{plan.n_buckets} buckets from {plan.n_buckets // 2} directions", plan.n_buckets // 2),
    (f"{plan.n_buckets} buckets as {' x '.join(map(str, factors))}", sum(factors) // 2),
):
    hash_flops = 2 * D_HEAD * directions * N_HASHES * length
    print(f"hashing, {name}: {hash_flops / 1e9:.1f} billion operations more")

# %% [markdown]
# Three things follow, and the package does all three:
#
# - **Cut the tiles to what is visible.** `attention/bands.py` takes 32 rows at a time and only the window that
#   these rows can see; `attention/islands.py` puts short buckets together as little squares.
# - **Hashing is not free.** In the plain way its products grow with the number of buckets, and so in all with the
#   square of the length: that is what factored buckets are for (lesson 02). Nor are the products with $-R$ computed:
#   they are those with $R$ with the other sign, so the largest and the smallest product say it all.
# - **The rest is moving numbers about.** Sorting is cheap, a stable radix sort of small integers; gathering rows
#   in sorted order is not, because memory is read at random. So a gather happens once for queries and values,
#   and the result is added back in place.
#
# ## 3. Measure it
#
# Now both on your machine: forward and backward, hashing and sorting included, against torch's own fused full
# attention, `scaled_dot_product_attention`. Times are the fastest of several,
# taken in turn, so that a slow minute hits everybody.
#
# > **Predict, then move.** From which length on will four rounds of LSH attention be faster? And one round? Then
# > choose other rounds in the control.

# %% tags=["nbval-ignore-output"]
from reformer_viz import explore_speed, measure_speed

speed = measure_speed(lengths=(256, 512, 1024, 2048, 4096, 8192), n_hashes=(1, 2, 4), repeats=5)
curves = explore_speed(speed, n_hashes=4)
curves

# %% tags=["nbval-ignore-output"]
curves.controls["n_hashes"].value = 1
print(curves)
print(speed.describe())

# %% [markdown]
# Times differ from machine to machine, and with them these sentences. What the picture shows now is the same everywhere:

# %%
print(str(curves).partition(":")[0])

# %% [markdown]
# From the same measurement: the ratio of both, the length at which it passes one, and the exponent $p$ of
# $\text{time} \sim l^{\,p}$ between the two longest texts. On a log-log plot it is the slope.

# %% tags=["nbval-ignore-output"]
import numpy as np

lengths = np.array(speed.lengths)
kinds = [contestant.key for contestant in speed.contestants]
times = speed.step.fastest  # contestants, rounds, lengths
ours = times[kinds.index("ours_once")]
exact = np.nanmin(times[kinds.index("full")], axis=0)

for place, n_hashes in enumerate(speed.n_hashes):
    ratio = exact / ours[place]
    slower = np.flatnonzero(ratio <= 1)
    faster = lengths[slower[-1] + 1 :] if slower.size else lengths
    start = f"from {faster[0]:,} tokens on" if faster.size else "nowhere here"
    print(f"rounds {n_hashes}: faster {start}; ", end="")
    print(f"at {lengths[-1]:,} tokens {ratio[-1]:.1f} times as fast")
for name, line in (("LSH, 4 rounds", ours[-1]), ("full", exact)):
    p = np.log(line[-1] / line[-2]) / np.log(lengths[-1] / lengths[-2])
    print(f"{name}: time grows with length^{p:.2f}")

# %% [markdown]
# *What to look for:* where each ratio passes one, and whether more rounds cross later. LSH attention has fixed
# costs, a Python call for every piece of work, that short texts do not repay, and each round has its own; but two
# numbers of rounds can change places where a machine was busy with something else. Then, how near one the slope of LSH attention has come,
# and how near two that of full attention: at these lengths fixed costs and a noisy machine still bend both. The project's
# README has the same curves up to 64 thousand tokens, which give the exponent, with the
# other two LSH implementations beside ours, and how they were measured.
#
# ## 4. On a GPU
#
# A GPU is further ahead of a processor in multiplying than in reading memory, so what counts there is how often a
# number is fetched. `attention/triton.py` computes the same in fused kernels, one launch for each round and pass:
# rows are gathered by `order` while they are read, so that no sorted copies are made, and one running softmax is
# carried from round to round. Full attention's fused kernels (FlashAttention) save memory traffic too, so a
# crossing that was measured on a processor says nothing about a GPU: run the cells of section 3 on yours;
# `measure_speed` takes a GPU where there is one. Without one, torch shares every operation of `attention/chunked.py` among the cores.
#
# In half precision, float16 or bfloat16, `lsh_attention` computes softmax and sums in float32 all the same.
#
# To the rest of PyTorch the attention is *one* operation: `torch.compile` and `torch.export` see a single opaque
# call (`attention/operation.py`), so the attention of a compiled model is that of an eager one.
#
# ## 5. When to use what
#
# | your text | take | because |
# | --- | --- | --- |
# | up to about the crossing that you measured above | full attention | as fast or faster, and it misses nothing |
# | longer, but what matters stands nearby | local attention | a window needs no hash (the authors' configurations mix both) |
# | longer, and what matters may stand anywhere | LSH attention | cost nearly in proportion to the length; training can turn what belongs together the same way |
# | any length, out of memory because of depth | reversible layers or checkpointing | attention is not the problem ([lesson 07](07_reversible.ipynb)) |
# | any length, and a wrong answer where one key was missed is not acceptable | full attention | a miss cannot be excluded ([lesson 09](09_train_duplicate.ipynb)) |
#
# ## What surprised us
#
# - **The two PyTorch libraries that most people use waste most of the machine.** Both compute whole tiles, in several copies of keys
#   and values; the README says how much memory and time that costs. The algorithm was not the slow part.
# - **`argmax` is slow.** `hashing.py` looks for the largest and the smallest product instead and asks afterwards
#   where they stand: several passes over the products, and still quicker than torch's one.
# - **A time alone says nothing.** It needs a peer above and a bound below. The README's table has both: other
#   implementations, and the products of whole tiles with nothing around them.
# - **Equal work, unequal results.** One library as installed counts a pair as often as it is seen, and has half as
#   many buckets for the same setting. A comparison has to say which rule each contestant follows.
#
# ## Exercises
#
# ### 1. Pairs of a plan
#
# *Difficulty ●●○○○, importance ●●●●○, about 10 minutes.*
#
# Write `pairs_shown(plan)`: how many pairs do all rounds, heads and texts of a plan compute, repeats counted, without
# building length times length?
#
# <details><summary>Hint 1</summary>
#
# `plan.first` and `plan.last` are the ends of each slot's run, both included.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# An empty run has `first = last + 1`.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import fast as check


def pairs_shown(plan):
    """Return how many pairs the rounds show, repeats counted."""
    raise NotImplementedError


check.pairs_shown(pairs_shown)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def pairs_shown(plan):
#     return int((plan.last - plan.first + 1).sum())
# ```
#
# </details>

# %% [markdown]
# ### 2. Operations of a step
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Write `full_step_flops(length, n_heads, d_head)`: the operations of all products in a forward and backward pass of
# full *causal* attention, where the backward computes the scores again.
#
# <details><summary>Hint 1</summary>
#
# How many pairs has a causal sequence? A token does not count itself.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two products forward, five backward, and two operations for each multiply-add.
#
# </details>


# %% tags=["exercise"]
def full_step_flops(length, n_heads, d_head):
    """Return the operations of the products of one step."""
    raise NotImplementedError


check.full_step_flops(full_step_flops)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def full_step_flops(length, n_heads, d_head):
#     pairs = length * (length - 1) // 2
#     return 2 * 7 * d_head * n_heads * pairs
# ```
#
# </details>

# %% [markdown]
# ### 3. Where do they cross?
#
# *Difficulty ●●●○○, importance ●●●●○, about 10 minutes.*
#
# In LSH attention a query computes `pairs_per_query` pairs, whatever the length, and each is `price` times as dear as one
# of full causal attention. Write `crossover_length(pairs_per_query, price)`: the first length at which LSH attention is no
# dearer.
#
# <details><summary>Hint 1</summary>
#
# A causal query of full attention sees `(length - 1) / 2` keys on average.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Set both costs of a query equal, and round up: `math.ceil`.
#
# </details>


# %% tags=["exercise"]
def crossover_length(pairs_per_query, price):
    """Return the first length at which LSH attention is no dearer."""
    raise NotImplementedError


check.crossover_length(crossover_length)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
#
# def crossover_length(pairs_per_query, price):
#     return math.ceil(2 * price * pairs_per_query + 1)
# ```
#
# Solve `price * pairs_per_query = (length - 1) / 2` for the length.
#
# </details>

# %% [markdown]
# ### 4. Read a slope
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Write `exponent(lengths, seconds)`: the $p$ of $\text{time} \sim l^{\,p}$, by a straight line through all points.
#
# <details><summary>Hint 1</summary>
#
# Take logarithms of both sides: what is then linear in what?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `np.polyfit(x, y, 1)` returns slope and intercept.
#
# </details>


# %% tags=["exercise"]
def exponent(lengths, seconds):
    """Return the power with which time grows."""
    raise NotImplementedError


check.exponent(exponent)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def exponent(lengths, seconds):
#     slope, _ = np.polyfit(np.log(lengths), np.log(seconds), 1)
#     return slope
# ```
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>Why does a query of LSH attention see about as many keys in a long text as in a short one?</summary>
#
# There are more buckets in proportion, so each is as long as before, and the window is fixed.
#
# </details>
#
# <details><summary>Why seven products, and not six?</summary>
#
# The backward computes the scores again instead of keeping them.
#
# </details>
#
# <details><summary>Why is most of a whole tile wasted?</summary>
#
# It spans two chunks, and of these a query sees only earlier keys of its own bucket.
#
# </details>
#
# <details><summary>Why does LSH attention lose at short lengths?</summary>
#
# Hashing, sorting, gathering and the calls around them cost about the same however little there is to attend to.
#
# </details>
#
# <details><summary>Why are timings compared within one run, and the fastest taken?</summary>
#
# Machines have slow moments. Taken in turn, everybody meets them; the fastest run met none.
#
# </details>
#
# <details><summary>When is exact attention the better choice?</summary>
#
# Below the crossing, and wherever a miss is not acceptable.
#
# </details>
#
# ## Next
#
# You have seen all of it. Go on with a model of your own: `TextBytes.from_file` and `train`, or
# `python -m reformer_core train text --help`; the [tour](00_tour.ipynb) shows both. To go deeper, read
# `reformer_core/bucketing.py`, then `attention/dense.py`, `attention/chunked.py` and `reversible.py`: they were
# written to be read. Further reading: Sec. 5 of the paper; Dao and others, *FlashAttention* (2022), on what memory
# costs.

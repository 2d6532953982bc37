# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does it learn from text?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/10_train_text.ipynb)
#
# Copying has one right answer and one needed key. A text has neither: many bytes could come next, and
# what helps to guess stands all over the place. This lesson takes a small Reformer that has read the help
# texts of Python for some minutes, asks how well it does and by which measure, lets it write, trains it a
# few steps further, and looks at what its hashing missed and what that cost, byte by byte.
#
# After this lesson you can
# - say what bits per byte mean, and why `xz` is a fair bar for them;
# - train a model on a text of your own, and go on from a checkpoint;
# - sample from a model, and say what temperature and top-p do;
# - find the bytes of a text for which a missed key cost most;
# - look for the pair of tokens behind a prediction with the microscope.
#
# Needs: [can it learn to copy](09_train_duplicate.ipynb) and
# [how many rounds are enough](04_how_many_rounds.ipynb). Words: [glossary](../docs/glossary.md).
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
# ## 1. Bits per byte
#
# The text is cut into bytes, so there are 256 tokens and nothing is unknown. A language model gives every
# next byte $x_t$ a probability, and its loss is the mean of $-\log p(x_t \mid x_{<t})$. With logarithms of
# base 2 that is a number of **bits per byte**: the length to which a strictly causal model, with an arithmetic
# coder, would compress the text. A plain byte has 8, and a model that knows nothing needs all of them. Ours is
# measured in one full pass with the paper's chunks, whose borders later bytes move ([lesson
# 05](05_does_it_peek.ipynb)): a decoder could not repeat its probabilities exactly, so read the number as a loss.
# It also leaves out the first byte of every window, which `xz` has to pay for.
#
# The unit is the same for compression programs, and so `xz` is a bar: how much does its file grow by the
# held-out text, if it has read the training text first?
#
# $$\text{bits per byte of xz} = 8\,\frac{|xz(\text{training} + \text{held out})| - |xz(\text{training})|}{|\text{held out}|}$$
#
# With the sentence of the course's sixteen tokens, of which the first half is for training:

# %%
from reformer_core.tasks import TextBytes
from reformer_viz.lessons import WORDS

sentence = " ".join(WORDS)
tokens = TextBytes.encode(sentence)
print(f"{len(WORDS)} words, {len(tokens)} bytes; the first: {tokens[:8].tolist()}")
print(TextBytes.decode(tokens[:11]))

# %% [markdown]
# The real text needs no network: every Python carries the texts of its `help()`. A tenth of its topics is
# held out, and every paragraph of those is taken out of the rest. The texts differ a little from Python to
# Python, so this lesson speaks of thresholds, not of digits.

# %%
text = TextBytes(length=256)
xz = text.xz_bits_per_byte()
n_training, n_held_out = (len(part) for part in (text.text.training, text.text.held_out))
print("between 250,000 and a million bytes to learn from:", 250_000 < n_training < 1_000_000)
print("xz needs less than 2.5 bits per byte:", xz < 2.5)

# %% [markdown]
# ## 2. A writer, trained before
#
# The course brings one: four layers, local attention and LSH attention in turn. The authors'
# configurations for text mix the two kinds as well. The command makes it again.

# %%
from reformer_viz.lessons import shipped

writer = shipped.load("text")
config = writer.model.config
print([config.attention_of(layer) for layer in range(config.n_layers)], "width", config.d_model)
print(writer.describe())

# %% [markdown]
# Measured anew, on this machine and on this Python's text:

# %%
from reformer_core.training import evaluate

found = evaluate(writer.model, text)
print("less than half of a plain byte:", found.measure < 4)
print("xz is still better:", xz < found.measure)

# %% tags=["nbval-ignore-output"]
print(f"the writer {found.measure:.2f}, xz {xz:.2f} bits per byte")

# %% [markdown]
# *What you see:* the bar is hard. `xz` looks back over the whole training text and copies what comes again
# word for word; the model sees 256 bytes and has to keep all else in its weights.
#
# How did it get there? The film shows one held-out window while the model was trained: its buckets in both
# LSH layers.
#
# > **Predict, then move.** Copying ended in pairs of tokens that share a bucket. What will a bucket hold
# > here, in the end: equal bytes, bytes of the same kind (spaces, vowels), or neighbours in the text?

# %%
from reformer_viz import explore_training

film = explore_training(writer.training)
film

# %% [markdown]
# Code moves it: the first LSH layer, and in it one head, before training and after.

# %%
for snapshot in (0, len(writer.training.recording.steps) - 1):
    film.place = {"snapshot": snapshot, "layer": 0, "head": 0}
    print(film, "\n")

# %% [markdown]
# A count answers the question, for the same layer and all its heads and rounds: how often are two tokens of
# one bucket equal bytes? And of those that are not, how often are they of one kind, or near each other?
# Beside it stands how often that is so of any two tokens of the window.

# %%
import torch

recording = writer.training.recording
letters = torch.from_numpy(recording.tokens)
positions = torch.arange(len(letters))


def kind_of(byte):
    """Tell spaces, vowels, other letters, digits and the rest apart."""
    letter = chr(byte)
    kinds = letter.isspace(), letter.lower() in "aeiou", letter.isalpha(), letter.isdigit(), True
    return kinds.index(True)


kinds = torch.tensor([kind_of(byte) for byte in letters.tolist()])
any_two = ~torch.eye(len(letters), dtype=torch.bool)
equal = letters[:, None] == letters
unequal = any_two & ~equal
options = {
    "equal bytes": (equal, any_two),
    "of unequal bytes, of one kind": (kinds[:, None] == kinds, unequal),
    "of unequal bytes, at most 8 apart": ((positions[:, None] - positions).abs() <= 8, unequal),
}


def share_in_a_bucket(is_so, pairs, snapshot):
    """Return of how many of the pairs in one bucket it is so, in the first LSH layer."""
    buckets = torch.from_numpy(recording.buckets[snapshot, 0]).flatten(0, 1)
    together = (buckets[:, :, None] == buckets[:, None]) & pairs
    return float((is_so & together).sum() / together.sum())


print(f"{'':36}any two   in a bucket at first   at last")
for name, (is_so, pairs) in options.items():
    first, last = (share_in_a_bucket(is_so, pairs, snapshot) for snapshot in (0, -1))
    print(f"{name:36}{float(is_so[pairs].float().mean()):7.2f} {first:22.2f} {last:9.2f}")

# %% [markdown]
# *What you see:* a bucket holds equal bytes far more often than chance would, but it did so before the first
# step: equal bytes begin with equal vectors. What training added are bytes of one *kind*: at first as many as
# chance gives, at last clearly more. Neighbours hardly gained, and in this model they are the local layers' work. With
# such buckets the rounds hold about twice as much of full attention's weight (the two sentences above).
#
# ## 3. Let it write
#
# `sample` draws a byte from the model's distribution, appends it, and asks again. The **temperature**
# divides the logits before the softmax: below 1 the likely becomes likelier. **Top-p** keeps the fewest
# likeliest bytes that together have the probability $p$, and drops the rest.

# %% tags=["nbval-ignore-output"]
from reformer_core import sample

prompt = text.encode("The statement")[None]
for temperature in (0.3, 0.7, 1.2):
    generator = torch.Generator().manual_seed(0)
    written = sample(
        writer.model, prompt, 120, temperature=temperature, top_p=0.95, generator=generator
    )
    print(f"temperature {temperature}:\n{text.decode(written[0])}\n")

# %% [markdown]
# *What you see:* cold, it repeats itself; hot, it invents words. Each byte costs a whole forward pass,
# because with the paper's chunks a later token moves the borders of the chunks ([lesson
# 05](05_does_it_peek.ipynb)): what is sampled is exactly the model.

# %% [markdown]
# ## 4. Train it further
#
# A checkpoint's weights are a beginning like any other. A few steps, here on the same text; with
# `TextBytes.from_file("...")` it would be your own.

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

from reformer_core import train

how = replace(writer.how, steps=12, learning_rate=3e-4, evaluate_every=None, evaluation_batches=6)
student = shipped.load("text").model  # the writer itself stays as it is
before = evaluate(student, text, n_batches=6)
run = train(student, text, how)
after = run.evaluations[-1]
print(f"{before.measure:.3f} bits per byte before, {after.measure:.3f} after, {run.seconds:.0f} s")

# %%
print("no worse than before, within 0.1 bits:", after.measure < before.measure + 0.1)

# %% [markdown]
# The writer had come to the end of its schedule on this very text, so a few careful steps change little. Try
# a text that it has not read.
#
# ## 5. What did the misses cost?
#
# In a text no key is *the* needed one. But the same weights can be used with full attention in the place
# of LSH attention, and the difference of the two losses is, for each byte, what the missed keys cost. Byte
# by byte, in bits:
#
# $$\text{cost}_t = \log_2 p_{\text{full}}(x_t \mid x_{<t}) - \log_2 p_{\text{LSH}}(x_t \mid x_{<t})$$

# %%
from IPython.display import HTML

from reformer_viz import measure_miss_cost, write_miss_cost

passage = torch.frombuffer(bytearray(text.text.held_out[:256]), dtype=torch.uint8).long()
cost = measure_miss_cost(writer.model, passage, max_hashes=4)
by_rounds = cost.cost.mean(1)
print("with four rounds less than a tenth of a bit a byte:", bool(abs(by_rounds[3]) < 0.1))

# %% tags=["nbval-ignore-output"]
print(cost.describe(1))
HTML(write_miss_cost(cost, n_hashes=1))

# %% [markdown]
# *What you see:* each byte is painted with what missed keys cost it: orange lost bits, blue gained some. A
# missed key may even help, if it would have misled. With one round most predictions miss at least half of
# full attention's weight and lose almost nothing by it (the sentence above counts them); the dearest byte,
# which it names, pays many times as much. Unlike in copying, no single key decides.

# %% [markdown]
# ## 6. Look inside
#
# The microscope shows one head of the writer at work on a text: the chosen token's bucket-mates, those
# that its window shows, those that it loses, those that other rounds find, and the weight of each.
#
# > **Predict, then move.** Choose a letter in the second “statement”. Will it look for the same letter,
# > for the letter that came next the last time, or for its neighbours? Then look with one round instead
# > of four: whom does it lose?

# %% tags=["nbval-ignore-output"]
from reformer_viz import explore_model

statement = "The if statement is used for conditional execution. The while statement is used for repeated execution."
microscope = explore_model(writer.model, statement, layer=1)
microscope

# %% [markdown]
# By code: a byte of the second “statement”, with all rounds and with one. The sentence is made from the
# same numbers as the picture.

# %%
first, second = statement.index("statement"), statement.index("statement", 40)
for rounds in (4, 1):
    microscope.place = {"token": second + 4, "rounds": rounds}
    print(microscope, "\n")

# %% [markdown]
# And all nine letters of that word, in this head: to whom does each give most, and how many keys does it see?

# %%
looked_at = microscope.data
heaviest, with_four, with_one = [], [], []
for at in range(second, second + len("statement")):
    keys, weights = looked_at.weights_of(at)
    heaviest.append(int(keys[weights.argmax()]))
    with_four.append(len(keys))
    with_one.append(int(looked_at.under(rounds=1).seen_by(at).sum()))

same = sum(statement[key] == statement[second + i] for i, key in enumerate(heaviest))
in_place = sum(key == first + i for i, key in enumerate(heaviest))
after = sum(statement[key - 1] == statement[second + i] for i, key in enumerate(heaviest))
near = sum(key >= second + i - 8 for i, key in enumerate(heaviest))
print(f"of {len(heaviest)} letters, most weight goes to the same letter: {same}", end="")
print(f" (in the same place of the first “statement”: {in_place}),")
print(f"to what followed that letter: {after}, to one of the eight before: {near}")
print("keys seen with four rounds:", with_four)
print("keys seen with one round:  ", with_one)

# %% [markdown]
# *What you see:* this head looks for the same letter, mostly where it stood in the same word: shared query-keys
# make that easy, since what is alike points the same way ([lesson 06](06_shared_qk.ipynb)). What came next is
# for other layers to tell. With one round a letter keeps a part of its keys, and one letter
# sees nobody: in that round its bucket holds no earlier token.

# %% [markdown]
# ## What surprised us
#
# - **A held-out text is not held out by itself.** The help topics quote each other: a third of what was
#   held out stood word for word in the rest, and the first model looked far better than it was. Every
#   paragraph that is held out is now taken out of the training text.
# - **The model that is evaluated may not be the one that writes.** A well-known library's cached sampling
#   answers slightly differently from its own full pass, and its batches of more than one read the wrong
#   row's cache. Here sampling costs a full pass for each byte, and nothing differs.
# - **Zeroing the hashing layers of a trained model hardly changed its loss**, somebody found, on short
#   texts, where that library does not hash at all. Where the other layers are good, that is what one should
#   expect: look at what misses cost before you praise the hash, or blame it.
# - **At 256 bytes full attention is cheaper.** This lesson hashes in order to show it. For a text model of
#   this length, take full attention; the Reformer begins to pay at thousands of tokens ([lesson
#   11](11_fast.ipynb)).

# %% [markdown]
# ## Exercises
#
# ### 1. The unit
# *Difficulty ●●○○○, importance ●●●●○, about 10 minutes.*
#
# Given `logits` ("batch length vocab", those at $t$ are about the byte at $t + 1$) and the `tokens` ("batch
# length"), return the bits per byte: a mean over every byte but the first of each row.
#
# <details><summary>Hint 1</summary>
#
# A softmax over the 256 possible bytes makes probabilities of logits; `torch.log2` counts in bits.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `gather(-1, index[..., None])` picks one number of each row, and the logits at the last position are
# about a byte that is not there.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import text as check


def bits_per_byte(logits, tokens):
    """Return the mean of -log2 p(next byte)."""
    raise NotImplementedError


check.bits_per_byte(bits_per_byte)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def bits_per_byte(logits, tokens):
#     shares = logits.softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])
#     return -torch.log2(shares).mean()
# ```
#
# Nothing predicts the first byte of a row, and nothing is known about what follows the last.
#
# </details>

# %% [markdown]
# ### 2. The bar
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Return what `xz` needs for `held_out` once it has read `training`, in bits per byte. Both are `bytes`.
# `compressed_size` below returns how many bytes a file of `xz` has.
#
# <details><summary>Hint 1</summary>
#
# `xz` has no memory between two files. Whoever has read something has it in the same file.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Two files, and how much longer one is than the other: section 1 has the formula.
#
# </details>

# %% tags=["exercise"]
import lzma


def compressed_size(content):
    return len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def xz_bits(training, held_out):
    """Return the growth of the compressed file, in bits per byte of `held_out`."""
    raise NotImplementedError


check.xz_bits(xz_bits)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def xz_bits(training, held_out):
#     growth = compressed_size(training + held_out) - compressed_size(training)
#     return 8 * growth / len(held_out)
# ```
#
# Without the training text, `xz` would have to learn English from the held-out text alone, and the model
# would win too easily.
#
# </details>

# %% [markdown]
# ### 3. Temperature
# *Difficulty ●○○○○, importance ●●●○○, about 5 minutes.*
#
# Return the distribution ("batch vocab") that a `temperature` makes of `logits`.
#
# <details><summary>Hint 1</summary>
#
# The softmax comes last, so that the shares add up to 1.
#
# </details>
# <details><summary>Hint 2</summary>
#
# At half the temperature, the differences between logits count twice.
#
# </details>


# %% tags=["exercise"]
def sharpened(logits, temperature):
    """Return the probabilities at a temperature."""
    raise NotImplementedError


check.sharpened(sharpened)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def sharpened(logits, temperature):
#     return (logits / temperature).softmax(-1)
# ```
#
# The ratio of two probabilities becomes its power: with temperature one half, its square.
#
# </details>

# %% [markdown]
# ### 4. Top-p
# *Difficulty ●●●○○, importance ●●●○○, about 15 minutes.*
#
# Return `probabilities` ("batch vocab") with everything set to 0 but the fewest likeliest bytes that
# together have at least `top_p`, made to add up to 1 again.
#
# <details><summary>Hint 1</summary>
#
# Sort in descending order, add up with `cumsum`, and decide in that order.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A byte is kept if those *before* it have not reached `top_p` yet: the one that crosses is kept.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.zeros_like(p).scatter(-1, token, ranked)` puts sorted numbers back in their places.
#
# </details>


# %% tags=["exercise"]
def nucleus(probabilities, top_p):
    """Keep the fewest likeliest bytes that together have `top_p`."""
    raise NotImplementedError


check.nucleus(nucleus)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def nucleus(probabilities, top_p):
#     ranked, token = probabilities.sort(dim=-1, descending=True)
#     before = ranked.cumsum(-1) - ranked
#     ranked = ranked * (before < top_p)
#     ranked = ranked / ranked.sum(-1, keepdim=True)
#     return torch.zeros_like(probabilities).scatter(-1, token, ranked)
# ```
#
# Where the model is sure, one byte remains; where it is not, many do.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>What does a bit per byte mean?</summary>
#
# The mean of $-\log_2$ of the probability that the model gave to what came next: the length of the text,
# per byte, as the model would compress it.
#
# </details>
# <details><summary>Why does xz read the training text first?</summary>
#
# The model has read it too. Only the growth of the compressed file is charged to the held-out text.
#
# </details>
# <details><summary>Why are paragraphs that are held out taken out of the training text as well?</summary>
#
# The topics quote each other. Otherwise the model could know held-out text by heart.
#
# </details>
# <details><summary>How is the cost of a miss measured where no key is the needed one?</summary>
#
# By the same weights with full attention in the place of LSH attention: the difference of the losses,
# byte by byte.
#
# </details>
# <details><summary>Can that cost be negative?</summary>
#
# Yes: a prediction may get better without the missed keys. The weights were trained with misses.
#
# </details>
# <details><summary>What does a low temperature do, and what does top-p do?</summary>
#
# The first makes the likely likelier, the second drops the unlikely; how many bytes top-p keeps depends
# on how sure the model is.
#
# </details>
# <details><summary>Why does sampling cost a full pass for every byte here?</summary>
#
# With the paper's chunks a new token moves the borders of the chunks, so that earlier outputs can change.
#
# </details>
# <details><summary>Which layers of this model hash?</summary>
#
# Every second one; the others attend in a local window. The authors' configurations for text mix both too.
#
# </details>

# %% [markdown]
# ## Next
#
# Everything so far was small. [What does the machine do, and when is exact attention the better
# choice?](11_fast.ipynb)
#
# Further reading: the paper's Sec. 5, enwik8 in bits per dimension. `python -m reformer_core train text
# --help` trains on a file of yours, or on enwik8.

"""Duplicate and TextBytes: what they draw, what they hold out, and what they measure."""

import io
import math
import re
import socket
import threading
import zipfile
import zlib
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pydoc_data.topics import topics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reformer_core.tasks import Archive, Batch, Duplicate, TextBytes
from reformer_core.tasks.batch import weighted_loss
from reformer_core.tasks.text import Text


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def certain(tokens, vocab_size):
    """Return logits that predict every next token with all their weight."""
    ahead = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
    return 100.0 * torch.nn.functional.one_hot(ahead, vocab_size)


# ---------------------------------------------------------------------------------- Duplicate


@given(vocab_size=st.integers(2, 40), half=st.integers(2, 20), seed=st.integers(0, 99))
def test_duplicate_is_a_zero_and_a_word_twice(vocab_size, half, seed):
    tokens = Duplicate(vocab_size, 2 * half).batch(3, seeded(seed)).tokens
    assert tokens.shape == (3, 2 * half)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens[:, :half], tokens[:, half:])
    assert (tokens[:, 0] == 0).all()
    assert tokens[:, 1:half].min() >= 1
    assert tokens.max() < vocab_size


def test_duplicate_draws_every_symbol_about_equally_often():
    words = Duplicate(6, 66).batch(500, seeded()).tokens[:, 1:33]
    shares = torch.bincount(words.flatten(), minlength=6) / words.numel()
    assert shares[0] == 0
    assert shares[1:].sub(1 / 5).abs().max() < 0.01


def test_duplicate_counts_the_predictions_of_the_second_word_alone():
    weights = Duplicate(5, 10).batch(2, seeded()).weights
    assert weights.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1]] * 2


@pytest.mark.parametrize("task", [Duplicate(9, 12), TextBytes(12)])
def test_a_batch_is_a_function_of_the_generator_alone(task):
    before = torch.get_rng_state()
    first = task.batch(4, seeded(1)).tokens
    torch.manual_seed(5)
    assert torch.equal(task.batch(4, seeded(1)).tokens, first)
    assert not torch.equal(task.batch(4, seeded(2)).tokens, first)
    torch.set_rng_state(before)
    task.batch(4, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("task", [Duplicate(9, 12), TextBytes(12)])
def test_held_out_batches_are_the_same_every_time_and_in_every_size(task):
    def everything(batch_size):
        batches = list(task.held_out(batch_size))
        assert max(len(batch.tokens) for batch in batches) == batch_size
        return torch.cat([torch.stack([b.tokens.float(), b.weights], -1) for b in batches])

    first = everything(7)
    torch.manual_seed(5)
    assert torch.equal(everything(7), first)
    assert torch.equal(everything(100), first)


def test_accuracy_is_the_share_of_the_second_word_that_is_right():
    task = Duplicate(5, 10)
    batch = task.batch(2, seeded())
    logits = certain(batch.tokens, 5)
    assert task.measure(logits, batch) == 1
    logits[0, 5:7] *= -1  # the two predictions of tokens[0, 6] and tokens[0, 7]
    assert task.measure(logits, batch) == 6 / 8
    logits[:, :5] *= -1  # nothing of the first half counts
    logits[:, -1] *= -1  # nor what would come after the end
    assert task.measure(logits, batch) == 6 / 8


@pytest.mark.parametrize(
    ("vocab_size", "length", "rule"),
    [
        (1, 8, "vocab_size must be at least 2, got 1"),
        (8, 2, "length must be at least 4, got 2"),
        (8, 7, "length must be even, got 7"),
    ],
)
def test_duplicate_refuses_what_leaves_nothing_to_repeat(vocab_size, length, rule):
    with pytest.raises(ValueError, match=rule):
        Duplicate(vocab_size, length)


def test_the_weighted_loss_is_the_mean_surprise_over_what_counts():
    logits = torch.randn(2, 5, 7, dtype=torch.float64)
    batch = Batch(torch.randint(7, (2, 5)), torch.rand(2, 5))
    total = count = 0.0
    for row in range(2):
        for place in range(1, 5):
            scores = [math.exp(x) for x in logits[row, place - 1].tolist()]
            weight = float(batch.weights[row, place])
            total -= weight * math.log(scores[int(batch.tokens[row, place])] / sum(scores))
            count += weight
    assert weighted_loss(logits, batch) == pytest.approx(total / count, rel=1e-6)


# ---------------------------------------------------------------------------------- TextBytes


def small_text(n_training=50, n_held_out=23):
    return Text(bytes(range(n_training)), bytes(range(100, 100 + n_held_out)))


def test_the_built_in_text_is_english_and_holds_out_topics_by_their_names():
    text = TextBytes().text
    assert len(text.training) > 300_000
    assert len(text.held_out) > 10_000
    assert b"The following" in text.training
    held = [words for name, words in topics.items() if zlib.crc32(name.encode()) % 10 == 0]
    assert all(words.encode() in text.held_out for words in held)


def test_no_paragraph_of_the_built_in_text_is_both_learned_and_held_out():
    text = TextBytes().text
    known = {part.strip() for part in text.held_out.decode().split("\n\n")}
    assert known.isdisjoint(part.strip() for part in text.training.decode().split("\n\n"))


def test_nearly_the_whole_help_is_learned_from():
    everything = sum(len(words.encode()) for words in topics.values())
    text = TextBytes().text
    assert len(text.training) + len(text.held_out) > 0.9 * everything


def test_training_windows_begin_anywhere_in_the_training_text():
    windows = TextBytes(48, small_text(n_held_out=48)).batch(200, seeded()).tokens
    starts = windows[:, 0].tolist()
    assert set(starts) == {0, 1, 2}
    assert torch.equal(windows, windows[:, :1] + torch.arange(48))


@given(length=st.integers(2, 23), n_held_out=st.integers(23, 60), batch_size=st.integers(1, 9))
def test_every_held_out_byte_but_the_first_counts_once_and_in_order(length, n_held_out, batch_size):
    task = TextBytes(length, small_text(n_held_out=n_held_out))
    counted = [
        batch.tokens[row, place].item()
        for batch in task.held_out(batch_size)
        for row in range(len(batch.tokens))
        for place in range(1, length)
        if batch.weights[row, place]
    ]
    assert bytes(counted) == task.text.held_out[1:]


def test_bits_per_byte_are_8_for_a_guess_and_0_for_certainty():
    task = TextBytes(12)
    batch = task.batch(3, seeded())
    assert task.measure(torch.zeros(3, 12, 256), batch) == pytest.approx(8)
    assert task.measure(certain(batch.tokens, 256), batch) == pytest.approx(0)
    assert task.measure_of_loss(3 * math.log(2)) == pytest.approx(3)


def test_xz_needs_nothing_for_what_it_has_read_and_8_bits_for_noise():
    noise = bytes(torch.randint(256, (6000,), generator=seeded()).tolist())
    assert TextBytes(8, Text(noise[:3000], noise[:3000])).xz_bits_per_byte() < 0.2
    assert 7.9 < TextBytes(8, Text(noise[:3000], noise[3000:])).xz_bits_per_byte() < 8.3


def test_any_file_is_a_text_whose_last_tenth_is_held_out(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(bytes(range(200)))
    task = TextBytes.from_file(path, length=20)
    assert task.text == Text(bytes(range(180)), bytes(range(180, 200)))


def test_a_file_that_is_empty_or_too_short_is_refused_with_its_sizes(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"mine.txt must hold a text, got 0 bytes"):
        TextBytes.from_file(path, length=20)
    path.write_bytes(b"x" * 199)
    with pytest.raises(ValueError, match=r"199 bytes.*length = 20 bytes to hold out, got 19"):
        TextBytes.from_file(path, length=20)
    with pytest.raises(FileNotFoundError):
        TextBytes.from_file(tmp_path / "other.txt")


def test_text_becomes_its_bytes_and_comes_back():
    tokens = TextBytes.encode("naïve €")
    assert tokens.tolist() == list("naïve €".encode())
    assert TextBytes.decode(tokens) == "naïve €"
    assert TextBytes.decode(tokens[:-1]) == "naïve \N{REPLACEMENT CHARACTER}"


def test_facts_tell_texts_apart():
    first, other = small_text(), Text(small_text().training, small_text().held_out[::-1])
    assert TextBytes(8, first).facts() == TextBytes(8, first).facts()
    assert TextBytes(8, first).facts() != TextBytes(8, other).facts()


# --------------------------------------------------------- the download, from a server of our own

TEXT = bytes(range(256)) * 40
PARTS = (9_000, 1_000, 240)


def zipped(content, member="tiny8"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # stored, so that the zip is as long as the text
        archive.writestr(member, content)
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Serve one file by ranges; may break off after `breaks_after` bytes, or ignore ranges."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.breaks_after, self.knows_ranges = zipped(TEXT), None, True
        self.ranges = []

    def archive(self, **changes):
        port = self.server_address[1]
        facts = {"member": "tiny8", "parts": PARTS, "sha1": sha1(TEXT).hexdigest()}
        return Archive(url=f"http://127.0.0.1:{port}/pub/tiny8.zip", **(facts | changes))


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        begin = int(asked.split("=")[1].rstrip("-")) if asked and server.knows_ranges else 0
        total = len(server.content)
        if begin >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - begin))
        self.end_headers()
        self.wfile.write(server.content[begin : server.breaks_after])

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_archive_is_downloaded_checked_split_and_kept(server, tmp_path):
    task = TextBytes.enwik8(8, tmp_path / "new", archive=server.archive())
    assert task.text == Text(TEXT[:9_000], TEXT[9_000:10_000])
    test = TextBytes.enwik8(8, tmp_path / "new", held_out="test", archive=server.archive())
    assert test.text == Text(TEXT[:9_000], TEXT[10_000:])
    assert server.ranges == [None]
    assert names(tmp_path / "new") == ["tiny8", "tiny8.zip"]


def test_a_download_that_broke_off_is_gone_on_with(server, tmp_path):
    server.breaks_after = 6_000
    with pytest.raises(OSError, match=r"broke off after 6,000 of .* run this again to go on"):
        TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert names(tmp_path) == ["tiny8.zip.part"]
    server.breaks_after = None
    task = TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert task.text.training == TEXT[:9_000]
    assert server.ranges == [None, "bytes=6000-"]


def test_a_server_that_knows_no_ranges_sends_the_whole_again(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / "tiny8.zip.part").write_bytes(b"something else")
    TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert server.ranges == ["bytes=14-"]
    assert (tmp_path / "tiny8.zip").read_bytes() == server.content


def test_a_partial_file_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "tiny8.zip.part").write_bytes(server.content)
    assert TextBytes.enwik8(8, tmp_path, archive=server.archive()).text.training == TEXT[:9_000]


def test_a_partial_file_that_is_too_long_is_dropped_and_said_so(server, tmp_path):
    (tmp_path / "tiny8.zip.part").write_bytes(server.content + b"more")
    with pytest.raises(OSError, match=r"longer than the file, and was deleted\): run this again"):
        TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert TextBytes.enwik8(8, tmp_path, archive=server.archive()).text.training == TEXT[:9_000]


def test_a_partial_file_of_something_else_is_never_taken_for_whole(server, tmp_path):
    (tmp_path / "tiny8.zip.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"tiny8.zip .*delete it and run this again"):
        TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert "tiny8" not in names(tmp_path)


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    archive = Archive(
        url=f"http://127.0.0.1:{port}/tiny8.zip", member="tiny8", parts=PARTS, sha1="0" * 40
    )
    with pytest.raises(
        OSError, match=rf"{archive.url} .*by hand and put it at {re.escape(str(tmp_path))}"
    ):
        TextBytes.enwik8(8, tmp_path, archive=archive)


def test_a_zip_put_there_by_hand_needs_no_network(tmp_path):
    (tmp_path / "tiny8.zip").write_bytes(zipped(TEXT))
    archive = Archive(
        url="http://nowhere.invalid/tiny8.zip",
        member="tiny8",
        parts=PARTS,
        sha1=sha1(TEXT).hexdigest(),
    )
    assert TextBytes.enwik8(8, tmp_path, archive=archive).text.training == TEXT[:9_000]


def test_a_text_with_the_wrong_checksum_never_gets_its_name(server, tmp_path):
    server.content = zipped(TEXT[:-1] + b"!")
    with pytest.raises(ValueError, match=r"10,240 bytes of text with the SHA-1 .*delete it"):
        TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert names(tmp_path) == ["tiny8.zip"]


def test_a_text_that_changed_on_the_disk_is_refused(server, tmp_path):
    TextBytes.enwik8(8, tmp_path, archive=server.archive())
    (tmp_path / "tiny8").write_bytes(TEXT[:-1])
    with pytest.raises(ValueError, match=r"got 10,239 bytes with .*delete it"):
        TextBytes.enwik8(8, tmp_path, archive=server.archive())


def test_a_page_in_place_of_the_zip_is_refused(server, tmp_path):
    server.content = b"<html>Please log in</html>"
    with pytest.raises(ValueError, match=r"not a whole zip with a file tiny8 in it"):
        TextBytes.enwik8(8, tmp_path, archive=server.archive())
    assert names(tmp_path) == ["tiny8.zip"]


def test_only_two_parts_of_an_archive_can_be_held_out(tmp_path):
    with pytest.raises(ValueError, match=r"one of \('validation', 'test'\), got 'train'"):
        TextBytes.enwik8(8, tmp_path, held_out="train")

"""Continue a text byte by byte: 256 tokens, and a measure that compression programs share."""

import lzma
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from reformer_core.tasks.batch import Batch, check_lengths, weighted_loss
from reformer_core.tasks.download import ENWIK8, Archive, fetch

CACHE = Path.home() / ".cache" / "reformer_core"


@dataclass(frozen=True)
class Text:
    """Hold a text in two parts, one to learn from and one held out."""

    training: bytes
    held_out: bytes


class TextBytes:
    """Offer windows of a text as raw bytes, of which every next one is to be predicted.

    `TextBytes(length)` needs no network: it is the English text that every CPython carries for its
    help, about 450 kB, a little different in every version. `TextBytes.from_file` reads any file,
    `TextBytes.enwik8` downloads the benchmark. Training windows begin anywhere; the held-out ones
    cover the held-out text in order.
    """

    name = "text"
    measure_name = "bits_per_byte"
    vocab_size = 256

    def __init__(self, length: int = 256, text: Text | None = None) -> None:
        check_lengths(self.vocab_size, length, least=2)
        self.length = length
        self.text = python_help() if text is None else text
        for part, held in (("learn from", self.text.training), ("hold out", self.text.held_out)):
            if len(held) < length:
                raise ValueError(
                    f"a text must have at least length = {length:,} bytes to {part}, got "
                    f"{len(held):,}: take a longer text or a shorter length"
                )
        self._training, self._held_out = map(_as_tensor, (self.text.training, self.text.held_out))

    @classmethod
    def from_file(cls, path: str | Path, length: int = 256) -> "TextBytes":
        """Take any file, of which the last tenth is held out."""
        content = Path(path).read_bytes()
        if not content:
            raise ValueError(f"{path} must hold a text, got 0 bytes")
        border = len(content) - len(content) // 10
        try:
            return cls(length, Text(content[:border], content[border:]))
        except ValueError as error:
            raise ValueError(f"{path}, {len(content):,} bytes: {error}") from error

    @classmethod
    def enwik8(
        cls,
        length: int = 1024,
        folder: str | Path | None = None,
        *,
        held_out: str = "validation",
        archive: Archive = ENWIK8,
    ) -> "TextBytes":
        """Take the first 10^8 bytes of Wikipedia, 90 million of them to learn from.

        Held out are the next 5 million, "validation", or the last 5 million, "test". The zip of
        36 MB is downloaded once into `folder` (None: ~/.cache/reformer_core); an interrupted
        download is gone on with. Raises OSError without a network and ValueError for a file that is
        not the published one; both say what to do.
        """
        parts = {"validation": 1, "test": 2}
        if held_out not in parts:
            raise ValueError(f"held_out must be one of {tuple(parts)}, got {held_out!r}")
        content = fetch(archive, CACHE if folder is None else Path(folder)).read_bytes()
        begin = sum(archive.parts[: parts[held_out]])
        size = archive.parts[parts[held_out]]
        return cls(length, Text(content[: archive.parts[0]], content[begin : begin + size]))

    def batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw windows that begin anywhere, with nothing but the generator."""
        last = len(self._training) - self.length
        starts = torch.randint(last + 1, (batch_size,), generator=generator)
        tokens = _windows(self._training, starts, self.length)
        return Batch(tokens, torch.ones(tokens.shape))

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Go through the held-out text in order, so that each byte but the first counts once.

        A window begins with the byte that the one before ended with, because nothing predicts a
        first byte. The last window is moved back to end with the text, and only its end counts.
        """
        step, last = self.length - 1, len(self._held_out) - self.length
        wanted = torch.arange(0, last + step, step)
        for starts in wanted.split(batch_size):
            tokens = _windows(self._held_out, starts.clamp(max=last), self.length)
            moved_back = (starts - starts.clamp(max=last))[:, None]
            yield Batch(tokens, (torch.arange(self.length) > moved_back).float())

    def measure(self, logits: Float[Tensor, "batch length vocab"], batch: Batch) -> float:
        """Return the bits per byte: how long the text would be as a compressed file."""
        return self.measure_of_loss(weighted_loss(logits, batch))

    def measure_of_loss(self, loss: float) -> float:
        """Return the bits per byte that a loss in nats means."""
        return loss / math.log(2)

    def xz_bits_per_byte(self) -> float:
        """Return what xz at its best needs for the held-out text after the training text.

        That is the growth of the compressed file: 8 (|xz(training + held_out)| - |xz(training)|) /
        |held_out|. Takes a second for the built-in text, and minutes for enwik8.
        """
        without = len(_xz(self.text.training))
        both = len(_xz(self.text.training + self.text.held_out))
        return (both - without) * 8 / len(self.text.held_out)

    @staticmethod
    def encode(text: str) -> Int[Tensor, " length"]:
        """Turn text into tokens: the bytes of its UTF-8."""
        return _as_tensor(text.encode()).long()

    @staticmethod
    def decode(tokens: Int[Tensor, " length"] | Sequence[int]) -> str:
        """Turn tokens into text; what is not UTF-8, as at a cut-off end, becomes a U+FFFD."""
        return bytes(torch.as_tensor(tokens).tolist()).decode(errors="replace")

    def facts(self) -> dict[str, str | int]:
        """Return what tells this task apart from others: also which text it is."""
        checksum = zlib.crc32(self.text.held_out, zlib.crc32(self.text.training))
        return {"name": self.name, "length": self.length, "text_crc32": checksum}


def python_help() -> Text:
    """Split Python's help: held out are the topics whose name has a CRC-32 divisible by 10.

    Some topics repeat others word for word: a third of what is held out would also be learned
    from. So every paragraph that is held out is left out of the training text, wherever it stands.
    """
    held = {name: words for name, words in topics.items() if zlib.crc32(name.encode()) % 10 == 0}
    known = {part.strip() for words in held.values() for part in _paragraphs(words)}
    kept = (
        part
        for name, words in topics.items()
        for part in _paragraphs(words)
        if name not in held and part.strip() not in known
    )
    return Text("\n\n".join(kept).encode(), "\n\n".join(held.values()).encode())


def _paragraphs(words: str) -> list[str]:
    """Cut a text where a line is empty."""
    return words.split("\n\n")


def _windows(
    text: UInt8[Tensor, " text"], starts: Int[Tensor, " batch"], length: int
) -> Int[Tensor, "batch length"]:
    """Cut the windows that begin at the given places."""
    return text[starts[:, None] + torch.arange(length)].long()


def _as_tensor(content: bytes) -> UInt8[Tensor, " bytes"]:
    """Copy bytes into a tensor of one byte each."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _xz(content: bytes) -> bytes:
    """Compress as well as xz can."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)

"""Fetch a published text once: resumed where it broke off, and used only when it is whole."""

import hashlib
import re
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from io import BufferedIOBase
from pathlib import Path

from tqdm.auto import tqdm

_PIECE = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Say where a zipped text lies, how it is split, and how to know that it is whole."""

    url: str
    member: str
    """The name of the text inside the zip, and of the file it becomes."""
    parts: tuple[int, int, int]
    """How many bytes are for training, validation and test, in this order."""
    sha1: str
    """Of the text, not of the zip."""

    @property
    def n_bytes(self) -> int:
        """Return the size of the text."""
        return sum(self.parts)

    @property
    def zip_name(self) -> str:
        """Return the file name of the zip."""
        return self.url.rsplit("/", 1)[-1]


ENWIK8 = Archive(
    url="http://mattmahoney.net/dc/enwik8.zip",
    member="enwik8",
    parts=(90_000_000, 5_000_000, 5_000_000),
    sha1="57b8363b814821dc9d47aa4d41f58733519076b2",
)
"""The first 10^8 bytes of the English Wikipedia of March 3, 2006, with the split everybody uses."""


def fetch(archive: Archive, folder: Path) -> Path:
    """Return the path of an archive's text, which is whole: size and SHA-1 are checked each time.

    What is there already is used: the text, or the zip, or the beginning of a zip, which is
    completed. Files get their names only when they are complete.

    Raises OSError when the download fails, and ValueError for a file that is not the published
    one; both say what to do.
    """
    text = folder / archive.member
    if not text.exists():
        folder.mkdir(parents=True, exist_ok=True)
        zipped = folder / archive.zip_name
        if not zipped.exists():
            _download(archive.url, zipped)
        _extract(archive, zipped, text)
    with text.open("rb") as file:
        found = _identity(_pieces(file))
    _check_identity(archive, found, text)
    return text


def _download(url: str, zipped: Path) -> None:
    """Bring a file here under its name, going on after what an earlier try has left."""
    part = zipped.with_name(zipped.name + ".part")
    try:
        _complete(url, part)
    except (OSError, HTTPException) as error:
        raise OSError(
            f"could not download {url} ({error or type(error).__name__}): run this again to go on "
            f"after the {_size(part):,} bytes that are here, or download it by hand and put it at "
            f"{zipped}"
        ) from error
    part.replace(zipped)


def _complete(url: str, part: Path) -> None:
    """Append to a partial file what is still missing."""
    already = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={already}-"} if already else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            goes_on = _first_byte(response) == already
            _store(response, part, already if goes_on else 0)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        # Nothing lies beyond what is here: either it is whole, or it is of something longer.
        if error.headers.get("Content-Range") != f"bytes */{already}":
            part.unlink()
            raise OSError("what was here is longer than the file, and was deleted") from error


def _first_byte(response: HTTPResponse) -> int:
    """Return where in the file an answer begins: a server may ignore that we asked for less."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if response.status == 206 and found else 0


def _store(response: HTTPResponse, part: Path, already: int) -> None:
    """Write an answer after the bytes that are there already, and check that none is missing."""
    missing = response.headers.get("Content-Length")
    total = None if missing is None else already + int(missing)
    with (
        part.open("ab" if already else "wb") as file,
        tqdm(total=total, initial=already, unit="B", unit_scale=True, desc=part.stem) as bar,
    ):
        for piece in _pieces(response):
            file.write(piece)
            bar.update(len(piece))
    if total is not None and _size(part) != total:
        raise OSError(f"the connection broke off after {_size(part):,} of {total:,} bytes")


def _extract(archive: Archive, zipped: Path, text: Path) -> None:
    """Unzip the text, and give it its name once it is known to be the published one."""
    part = text.with_name(text.name + ".part")
    try:
        with (
            zipfile.ZipFile(zipped) as opened,
            opened.open(archive.member) as source,
            part.open("wb") as file,
        ):
            found = _identity(_copied(_pieces(source), file))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{zipped} is not a whole zip with a file {archive.member} in it ({error}): delete it "
            f"and run this again"
        ) from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"could not unzip {zipped} ({error}): {archive.n_bytes:,} bytes are needed there"
        ) from error
    try:
        _check_identity(archive, found, zipped)
    except ValueError:
        part.unlink()
        raise
    part.replace(text)


def _check_identity(archive: Archive, found: tuple[int, str], path: Path) -> None:
    """Refuse what is not the published text, byte for byte."""
    if found != (archive.n_bytes, archive.sha1):
        n_bytes, sha1 = found
        raise ValueError(
            f"{path} must hold {archive.n_bytes:,} bytes of text with the SHA-1 {archive.sha1}, "
            f"got {n_bytes:,} bytes with {sha1}: delete it and run this again"
        )


def _identity(pieces: Iterator[bytes]) -> tuple[int, str]:
    """Return the size and the SHA-1 of what flows by."""
    n_bytes, digest = 0, hashlib.sha1(usedforsecurity=False)
    for piece in pieces:
        n_bytes += len(piece)
        digest.update(piece)
    return n_bytes, digest.hexdigest()


def _copied(pieces: Iterator[bytes], file: BufferedIOBase) -> Iterator[bytes]:
    """Write down what flows by."""
    for piece in pieces:
        file.write(piece)
        yield piece


def _pieces(source: BufferedIOBase) -> Iterator[bytes]:
    """Read to the end, a piece at a time."""
    while piece := source.read(_PIECE):
        yield piece


def _size(path: Path) -> int:
    """Return the size of a file, 0 when there is none."""
    return path.stat().st_size if path.exists() else 0

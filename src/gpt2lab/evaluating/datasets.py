"""The places of the published data sets, and their download.

``--data`` names a file, an archive, a folder, or an address. Without it, a data set is fetched from its authors or a
mirror, and cached beside the packed weights. Only the names of the files can be checked, because no checksums are
published for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

from gpt2lab.data.fetched import kept, write_record
from gpt2lab.errors import DownloadError, UsageError, first_line
from gpt2lab.evaluating.sources import Source, find_sources
from gpt2lab.system.caches import cache_folder
from gpt2lab.weights.fetch import Progress, fetch

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A file on the web, or in a data set's repository on the Hugging Face hub."""

    file: str
    """Address, or path in the repository."""
    repository: str | None = None

    def __str__(self) -> str:
        return f"{self.file} of {self.repository} on the Hugging Face hub" if self.repository else self.file


@dataclass(frozen=True)
class Dataset:
    """A published data set."""

    name: str
    patterns: tuple[str, ...]
    """Possible names of the file to use in an archive or a folder, best first."""
    places: tuple[Place, ...]
    """Sources to fetch it from, tried in this order."""


_CBT = "http://www.thespermwhale.com/jaseweston/babi/CBTest.tgz"

DATASETS = {
    "lambada": Dataset(
        "LAMBADA, the test set as OpenAI detokenised it",
        ("lambada_test*.jsonl", "lambada*test*.txt", "*test*.parquet"),
        (
            Place("https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl"),
            Place("data/lambada_test.jsonl", "EleutherAI/lambada_openai"),
        ),
    ),
    "wikitext2": Dataset(
        "WikiText-2 raw, test",
        ("wiki.test.raw", "wiki.test.tokens", "*test*.txt", "*test*.parquet"),
        (
            Place("wikitext-2-raw-v1.zip", "ggml-org/ci"),
            Place("https://wikitext.smerity.com/wikitext-2-raw-v1.zip"),
            Place("wikitext-2-raw-v1/test-00000-of-00001.parquet", "Salesforce/wikitext"),
        ),
    ),
    "wikitext103": Dataset(
        "WikiText-103 raw, test",
        ("wiki.test.raw", "wiki.test.tokens", "*test*.txt", "*test*.parquet"),
        (
            Place("wikitext-103-raw-v1/test-00000-of-00001.parquet", "Salesforce/wikitext"),
            Place("https://wikitext.smerity.com/wikitext-103-raw-v1.zip"),
        ),
    ),
    "hellaswag": Dataset(
        "HellaSwag, validation",
        ("hellaswag_val.jsonl", "*val*.jsonl", "*val*.parquet"),
        (
            Place("https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl"),
            Place("data/validation-00000-of-00001.parquet", "Rowan/hellaswag"),
        ),
    ),
    "cbt-cn": Dataset(
        "Children's Book Test, common nouns, validation",
        ("cbtest_cn_valid*.txt", "*cn*valid*"),
        (Place(_CBT), Place("CN/validation-00000-of-00001.parquet", "cam-cst/cbt")),
    ),
    "cbt-ne": Dataset(
        "Children's Book Test, named entities, validation",
        ("cbtest_ne_valid*.txt", "*ne*valid*"),
        (Place(_CBT), Place("NE/validation-00000-of-00001.parquet", "cam-cst/cbt")),
    ),
}


def find_data(
    task: str, data: str | None, say: Say = lambda line: None, progress: Callable[[str], Progress] | None = None
) -> Source:
    """Find the file of ``task`` in ``data`` (a path or an address) or in the cache, or fetch it.

    Raises :class:`~gpt2lab.errors.DownloadError` if no source has it, :class:`~gpt2lab.errors.UsageError` if ``data``
    holds no such file, or several.
    """
    dataset = DATASETS[task]
    start = progress or (lambda name: lambda done, total: None)
    path = _given(data, say, start) if data is not None else _from_places(dataset, say, start)
    found = find_sources(path, dataset.patterns)
    if len(found) > 1:
        raise UsageError(f"{path} contains several matching files ({found[0].name}, {found[1].name}, …): give one")
    return found[0]


def is_address(data: str) -> bool:
    """Return whether ``data`` is an address to fetch."""
    return urlparse(data).scheme in ("http", "https")


def _given(data: str, say: Say, start: Callable[[str], Progress]) -> Path:
    return _from_web(data, say, start) if is_address(data) else Path(data)


def _from_places(dataset: Dataset, say: Say, start: Callable[[str], Progress]) -> Path:
    problems, hint = [], ""
    for place in dataset.places:
        if place.file.endswith(".parquet") and find_spec("pyarrow") is None:
            hint = f"install pyarrow to read {place.file}, or "
            continue
        try:
            return _from_hub(place, say) if place.repository else _from_web(place.file, say, start)
        except DownloadError as error:
            problems.append(str(error))
    places = " or ".join(map(str, dataset.places))
    raise DownloadError(
        f"{dataset.name}: not on this machine, and the download failed ({problems[0]}); "
        f"{hint}get {places}, and give the file with --data"
    )


def _from_web(address: str, say: Say, start: Callable[[str], Progress]) -> Path:
    """Return the file at ``address``, fetched into the cache under its own name."""
    folder = cache_folder("datasets")
    if folder is None:
        raise DownloadError(f"there is no cache for {address}: set GPT2LAB_CACHE, or download it and give its path")
    name = Path(urlparse(address).path).name or "data"
    path = folder / hashlib.sha256(address.encode()).hexdigest()[:12] / name  # two addresses may end in the same name
    with kept(path.parent, address):
        if not path.is_file():
            write_record(path.parent, {name: None})
            fetch(address, path, progress=start(name))
            say(f"{name}: {path.stat().st_size:,} bytes from {address}, stored in {path.parent}")
    return path


def _from_hub(place: Place, say: Say) -> Path:
    """Return the file in the hub client's own cache, fetched if it is not there yet."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    repository = str(place.repository)
    cached = try_to_load_from_cache(repository, place.file, repo_type="dataset")
    if isinstance(cached, str):
        return Path(cached)
    try:  # metadata first: without a network it fails at once, a download only after half a minute
        get_hf_file_metadata(hf_hub_url(repository, place.file, repo_type="dataset"))
        path = Path(hf_hub_download(repository, place.file, repo_type="dataset"))
    except Exception as error:  # the classes are httpx's or requests', depending on the client's version
        reason = first_line(error) or type(error).__name__
        raise DownloadError(f"cannot get {place}: {reason}") from None
    say(f"{path.name}: {path.stat().st_size:,} bytes, {place}, stored in the hub's cache")
    return path

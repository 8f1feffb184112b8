"""What an ingest would do: the same walk, readings and checks, without a call or a write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from lookalike.embedders import Embedder
from lookalike.ingest.corridor import Terms
from lookalike.ingest.feeder import batched
from lookalike.ingest.prepare import Picture, Preparation
from lookalike.ingest.prune import gone_files, noting
from lookalike.ingest.sources import Candidate, Sources
from lookalike.ingest.spill import Seen
from lookalike.ingest.texts import Texts, is_new
from lookalike.reports import IngestPlan
from lookalike.store.database import Database
from lookalike.store.known import Known, Retry, known_places
from lookalike.store.reading import embedded_contents
from lookalike.store.writing import UNSUPPORTED
from lookalike.types import Usage

_WALK_BATCH = 256
_READ_BATCH = 16
_EXAMPLES = 20

_BYTES_PER_EMBEDDING = 2 * 2731
"""A vector of 1024 halves, three to a page, in the table and once more in the HNSW index."""

_BYTES_PER_FILE = 900
"""A file's and its image's rows with their indexes, without metadata."""


def plan(
    database: Database,
    embedder: Embedder,
    sources: Sources,
    preparation: Preparation,
    terms: Terms,
    *,
    most_pruned: float | None = None,
) -> IngestPlan:
    """Walk the sources, and count.

    Remote files that are not known are not downloaded: they count as new.

    Args:
        most_pruned: look for stored files that are gone, too, of which such a share may go.
    """
    tally: Counter[str] = Counter()
    scopes = list(sources.prune_scopes()) if most_pruned is not None else []
    with (
        Seen() as places,
        Seen() as contents,
        Seen() as failed,
        Seen() as walked,
        Texts(database, preparation.with_text) as texts,
        ThreadPoolExecutor(4) as readers,
    ):
        for batch in batched(noting(sources.walk(), scopes, walked), _WALK_BATCH):
            if terms.stop.is_set():
                break
            tally["found"] += len(batch)
            unread, repeated = [], []
            for candidate, known in _with_known(database, embedder, texts.told(batch), terms.retry):
                retold = known is not None and is_new(candidate, known)
                if retold and candidate.text is not None:
                    tally["new" if places.add(_as_found(candidate)) else "duplicates"] += 1
                elif known is not None and not retold and candidate.place.fingerprint in (None, known.fingerprint):
                    tally["unchanged" if known.state == "embedded" else known.state] += 1
                elif not places.add(_as_found(candidate)):
                    repeated.append(_as_found(candidate))
                elif candidate.remote and preparation.must_read(candidate):
                    tally["new"] += 1
                else:
                    unread.append(candidate)
            for few in batched(unread, _READ_BATCH):
                pictures = []
                for candidate, outcome in zip(few, readers.map(preparation.prepare, few), strict=True):
                    if isinstance(outcome, Picture):
                        pictures.append(outcome)
                    else:
                        end = UNSUPPORTED if getattr(outcome, "code", "") == UNSUPPORTED else "unreadable"
                        failed.add(f"{end}\0{_as_found(candidate)}")
                        tally[end] += 1
                stored = embedded_contents(
                    database, embedder.model, [p.content.sha256 for p in pictures if p.content is not None]
                )
                for picture in pictures:
                    digest = picture.content.sha256 if picture.content is not None else picture.image_id.bytes
                    if digest in stored or not contents.add(digest):
                        tally["duplicates"] += 1
                    else:
                        tally["new"] += 1
                        tally["adapted"] += bool(picture.changes)
                        tally["videos"] += picture.input.is_video
            for found in repeated:
                # a file that a table names again ends as it did before
                end = next((end for end in (UNSUPPORTED, "unreadable") if f"{end}\0{found}" in failed), "duplicates")
                tally[end] += 1
        examples: list[str] = []
        for uri, is_gone in gone_files(database, sources.collection, scopes, walked):
            tally["stored"] += 1
            tally["gone"] += is_gone
            if is_gone and len(examples) < _EXAMPLES:
                examples.append(uri)
    new, files = tally["new"], tally["new"] + tally["duplicates"]
    rate, price = embedder.rate, terms.price
    calls = -(-(new - tally["videos"]) // embedder.pictures_per_call) + tally["videos"]  # of which a call holds one
    return IngestPlan(
        model=embedder.model.name,
        found=tally["found"],
        pictures=new + tally["duplicates"] + tally["unchanged"],
        new=new,
        duplicates=tally["duplicates"],
        unchanged=tally["unchanged"],
        failed=tally["failed"],
        unreadable=tally["unreadable"],
        unsupported=tally["unsupported"],
        adapted=tally["adapted"],
        calls=calls,
        rate=rate,
        seconds=calls / rate if rate else 0.0,
        price=price.of(Usage(calls=calls)) if price is not None and price.unit == "calls" else None,
        currency=price.currency if price is not None else None,
        rows={"images": new, "files": files, "embeddings": new},
        disk_bytes=new * _BYTES_PER_EMBEDDING + files * _BYTES_PER_FILE,
        prune_files=tally["gone"],
        prune_examples=tuple(examples),
        prune_refused=most_pruned is not None and tally["gone"] > most_pruned * tally["stored"],
    )


def _as_found(candidate: Candidate) -> str:
    return f"{candidate.place.uri}\0{candidate.place.fingerprint}"


def _with_known(
    database: Database, embedder: Embedder, batch: list[Candidate], retry: Retry
) -> Iterator[tuple[Candidate, Known | None]]:
    known = known_places(database, embedder.model, [candidate.place for candidate in batch], retry)
    return ((candidate, known.get(candidate.place.name)) for candidate in batch)

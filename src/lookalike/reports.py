"""What long jobs say before, while and after they run: plans and reports of ingests, imports, exports and indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest would do: nothing is stored, and no service called.
    ``found = new + duplicates + unchanged + failed + unreadable + unsupported``.

    Attributes:
        found: files that were looked at.
        pictures: those that are pictures which the model takes, new or not.
        new: pictures that would be embedded. Remote files count as new where their fingerprint is; they are not read.
        duplicates: files that hold the same bytes as another one, or as an image that is stored already.
        unchanged: files that are known and have not changed.
        failed: files that failed for good in an earlier run, and would not be tried again.
        unreadable: files that would fail now.
        unsupported: files that are no pictures.
        adapted: new pictures that would be turned, converted or shrunk before they are sent.
        calls: what would be billed, at least.
        rate: calls a second.
        seconds: what that takes at least.
        price: what the calls would cost, None where no price is set or it goes by tokens.
        rows: rows that would be written, by table.
        disk_bytes: what the rows and their indexes take, roughly.
        prune_files: stored files that are gone, and that ``prune`` would remove.
        prune_examples: the first of them.
        prune_refused: whether they are more than may go.
    """

    model: str
    found: int
    pictures: int
    new: int
    duplicates: int
    unchanged: int
    failed: int
    unreadable: int
    unsupported: int
    adapted: int
    calls: int
    rate: float | None
    seconds: float
    price: float | None
    currency: str | None
    rows: Mapping[str, int]
    disk_bytes: int
    prune_files: int = 0
    prune_examples: tuple[str, ...] = ()
    prune_refused: bool = False
    dry_run: Literal[True] = True


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did. ``found = embedded + unchanged + failed + unsupported + pending``.

    Attributes:
        found: files that were looked at.
        expected: files that there are to look at; None while they are being counted, or if they cannot be.
        embedded: files whose picture was embedded in this run.
        unchanged: files whose picture was known already, by fingerprint or by content.
        failed: files that cannot be embedded, in this run or an earlier one.
        unsupported: files that are no pictures, and never claimed to be any.
        pending: files that were found but not finished, because the run was stopped.
        new_failures: those of `failed` that failed for the first time.
        calls: calls to the service that were answered with success, and so are billed.
        retries: further attempts, which are not.
        tokens: what the service said it counted.
        adapted: those of `embedded` that were turned, converted or shrunk before they were sent.
        pruned_files, pruned_images: what was removed because it was gone from the source.
        rate: calls a second that were allowed, None where nothing limits them.
        achieved_rate: calls a second that there were.
        price: what the calls cost, None where no price is set.
        seconds: from the first picture read to the last commit.
        stopped: why the run ended early, None if it did not.
    """

    model: str
    found: int = 0
    expected: int | None = None
    embedded: int = 0
    unchanged: int = 0
    failed: int = 0
    unsupported: int = 0
    pending: int = 0
    new_failures: int = 0
    calls: int = 0
    retries: int = 0
    tokens: int = 0
    adapted: int = 0
    pruned_files: int = 0
    pruned_images: int = 0
    rate: float | None = None
    achieved_rate: float = 0.0
    price: float | None = None
    currency: str | None = None
    seconds: float = 0.0
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import of precomputed vectors did. ``found = embedded + unchanged + failed + pending``.

    Attributes:
        collection: the named set that the files belong to.
        found: rows that the files hold.
        embedded: rows whose vector was stored in this run, or would be by a dry run.
        replaced: those of `embedded` whose image had other numbers before.
        unchanged: rows whose image has this vector already.
        failed: rows that cannot be stored.
        pending: rows that were not come to, because the run was stopped.
        new_failures: those of `failed` that failed for the first time.
        seconds: from the first row read to the last commit, and to the index where that was built.
        index: what became of the HNSW index: ``kept``, ``rebuilt`` (dropped for the load), ``built`` (it was missing)
            or ``missing`` (searches compare every vector until ``index build``); None where nothing was stored.
        stopped: why the run ended early, None if it did not.
        dry_run: whether nothing was stored.
        building: how far the index is while it is being built, as ``progress`` is told; None in the end.
    """

    model: str
    collection: str
    found: int = 0
    embedded: int = 0
    replaced: int = 0
    unchanged: int = 0
    failed: int = 0
    pending: int = 0
    new_failures: int = 0
    seconds: float = 0.0
    index: Literal["kept", "rebuilt", "built", "missing"] | None = None
    stopped: str | None = None
    dry_run: bool = False
    building: BuildProgress | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export of vectors did.

    Attributes:
        path: the file that was written.
        found: rows that there are to write, one for each file of an image that has a vector.
        rows: those that were written.
        images: images that they are of; one with several files has several rows.
        dimensions: how many numbers each vector has.
        bytes: size of the file; 0 while it is being written, and where the run was stopped.
        seconds: from the first row read to the file in its place.
        stopped: why the run ended early, without a file; None if it did not.
    """

    model: str
    path: str
    found: int = 0
    rows: int = 0
    images: int = 0
    dimensions: int = 0
    bytes: int = 0
    seconds: float = 0.0
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far the build of an index is.

    Attributes:
        phase: in PostgreSQL's words.
        share: how much of this phase is done, 0 to 1; None where PostgreSQL does not say.
    """

    phase: str
    share: float | None


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The HNSW index of one model.

    Attributes:
        index: its name, in the schema ``lookalike``.
        state: ``missing`` and ``invalid`` mean that searches compare every vector, ``building`` that they do for now.
        rows: vectors that are stored.
        dead_share: share of the table's row versions that are dead, 0 to 1, as PostgreSQL's statistics have it.
        table_bytes, index_bytes: on disk.
        scans: how often the index was used since the statistics began.
        left_overs: names of what builds that were killed have left behind; ``index build`` removes them.
        build: how far a build is that is under way, also one that is to replace a valid index.
        graph_bytes: memory that building it takes, roughly.
        maintenance_work_mem: bytes that the server gives a build by default.
        fits: whether the first fits into the second.
    """

    model: str
    index: str
    state: Literal["valid", "invalid", "missing", "building"]
    rows: int
    dead_share: float
    table_bytes: int
    index_bytes: int
    scans: int
    left_overs: tuple[str, ...]
    build: BuildProgress | None
    graph_bytes: int
    maintenance_work_mem: int
    fits: bool


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """What building an index took.

    Attributes:
        was: what was there before.
        rows: vectors that it holds.
        memory: bytes that the build was allowed.
        workers: processes that were allowed beside the first.
        fits: whether the graph fitted into memory until it was done.
        index_bytes: on disk.
        removed: names of left-overs that were removed.
        notes: what was done otherwise than asked or needed, and why, in sentences.
        stopped: why it is not built, None if it is.
    """

    model: str
    index: str
    was: Literal["valid", "invalid", "missing"]
    rows: int
    memory: int
    workers: int
    fits: bool
    index_bytes: int
    seconds: float
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class MetadataIndex:
    """An index on one key of the metadata.

    Attributes:
        key: as filters write it, such as ``exif.taken``.
        index: its name, in the schema ``lookalike``.
        state: ``invalid`` is what a build that was killed has left behind; the next one removes it.
        scans: how often it was used since the statistics began.
        build: how far the build is that is under way.
    """

    key: str
    index: str
    state: Literal["valid", "invalid", "building"]
    index_bytes: int
    scans: int
    build: BuildProgress | None = None


@dataclass(frozen=True, slots=True)
class MetadataIndexBuild:
    """What making an index on a key of the metadata took.

    Attributes:
        was: what was there before; a valid one stays as it is.
        index_bytes: on disk.
        removed: names of left-overs that were removed.
        notes: what was done otherwise than asked, and why, in sentences.
        stopped: why it is not made, None if it is there.
    """

    key: str
    index: str
    was: Literal["valid", "invalid", "missing"]
    index_bytes: int
    seconds: float
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class RecallAt:
    """How good and how fast the index is with so many candidates.

    Attributes:
        recall: share of the exact neighbours that were found, 0 to 1, mean over the queries.
        milliseconds: median time of a search in the database.
    """

    ef_search: int
    recall: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """What the index finds, compared with every vector.

    Attributes:
        limit: the k of recall@k.
        images: ids of the stored images that were searched with; each is left out of its own hits.
        texts, pictures: sources of the remembered queries, texts and pictures, that were searched with.
        default_ef_search: candidates that a search for so many hits keeps by itself.
        exact_milliseconds: median time of comparing every vector.
    """

    model: str
    index: str
    rows: int
    limit: int
    seed: int
    images: tuple[UUID, ...]
    texts: tuple[str, ...]
    pictures: tuple[str, ...]
    recall: tuple[RecallAt, ...]
    default_ef_search: int
    exact_milliseconds: float

"""Libraries that keep vectors in files of their own, or in memory alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import BATCH, CANDIDATES_BUILDING, LIMIT, NEIGHBOURS, Ask, Given, Peer

_REFINED = 2
"""So many times as many are compared again by lancedb's full vectors."""


class Chroma(Peer):
    """chromadb, in this process, on disk."""

    packages = ("chromadb",)

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._client = self._opened()
        self._batch = min(self._client.get_max_batch_size(), 5 * BATCH)
        self._photos = self._client.create_collection(
            "photos",
            embedding_function=None,
            configuration={
                "hnsw": {
                    "space": "cosine",
                    "max_neighbors": NEIGHBOURS,
                    "ef_construction": CANDIDATES_BUILDING,
                    "ef_search": self.candidates,
                    "num_threads": os.cpu_count() or 1,
                }
            },
        )

    def insert(self) -> None:
        for numbers, vectors, tolds in self.given.batches(self._batch):
            self._photos.add(ids=[str(number) for number in numbers], embeddings=vectors, metadatas=tolds)

    def look_at(self, candidates: int) -> None:
        super().look_at(candidates)
        self._photos.modify(configuration={"hnsw": {"ef_search": candidates}})
        # what is open goes on with as many as before
        self._client.clear_system_cache()
        self._client = self._opened()
        self._photos = self._client.get_collection("photos", embedding_function=None)

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            found = self._photos.query(
                query_embeddings=query[None], n_results=LIMIT, include=["metadatas", "distances"]
            )
            return [int(name) for name in found["ids"][0]]

        return ask

    def _opened(self) -> Any:
        import chromadb

        settings = chromadb.config.Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(self.given.folder, settings=settings)


class Lance(Peer):
    """lancedb, in this process, on disk, with its index IVF_HNSW_SQ of one partition."""

    packages = ("lancedb",)

    def __init__(self, given: Given) -> None:
        import lancedb

        super().__init__(given)
        self._database = lancedb.connect(given.folder)
        self._photos: Any = None

    def insert(self) -> None:
        import pyarrow as pa

        for _, vectors, tolds in self.given.batches(5 * BATCH):
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            rows = pa.Table.from_pylist(tolds).append_column("vector", lists)
            if self._photos is None:
                self._photos = self._database.create_table("photos", rows)
            else:
                self._photos.add(rows)

    def build(self) -> None:
        self._photos.create_index(
            metric="cosine",
            index_type="IVF_HNSW_SQ",
            num_partitions=1,
            m=NEIGHBOURS,
            ef_construction=CANDIDATES_BUILDING,
        )

    def look_at(self, candidates: int) -> None:
        super().look_at(max(candidates, _REFINED * LIMIT))  # it refuses fewer

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            search = (
                self._photos.search(query)
                .distance_type("cosine")
                .ef(self.candidates)
                .refine_factor(_REFINED)
                .limit(LIMIT)
            )
            return [row["number"] for row in search.select(["number", "uri", "price", "artist"]).to_list()]

        return ask


class Faiss(Peer):
    """faiss: a graph in memory, without metadata, without a database."""

    packages = ("faiss-cpu",)

    def __init__(self, given: Given) -> None:
        import faiss

        super().__init__(given)
        self._faiss = faiss
        self._index = faiss.IndexHNSWFlat(given.vectors.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = CANDIDATES_BUILDING
        self.look_at(self.candidates)

    def insert(self) -> None:
        for _, vectors, _ in self.given.batches(5 * BATCH):
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            self._index.add(vectors)
        # each client has a thread of its own
        self._faiss.omp_set_num_threads(1)

    def look_at(self, candidates: int) -> None:
        super().look_at(candidates)
        self._index.hnsw.efSearch = candidates

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            self._faiss.omp_set_num_threads(1)
            _, numbers = self._index.search(query[None] / np.linalg.norm(query), LIMIT)
            return [int(number) for number in numbers[0]]

        return ask

    def disk(self) -> int:
        path = Path(self.given.folder) / "index"
        self._faiss.write_index(self._index, str(path))
        return path.stat().st_size


class Hnswlib(Peer):
    """hnswlib: a graph in memory, without metadata, without a database."""

    packages = ("hnswlib",)

    def __init__(self, given: Given) -> None:
        import hnswlib

        super().__init__(given)
        self._index = hnswlib.Index("cosine", given.vectors.shape[1])
        self._index.init_index(len(given.vectors), M=NEIGHBOURS, ef_construction=CANDIDATES_BUILDING)
        self.look_at(self.candidates)

    def insert(self) -> None:
        for numbers, vectors, _ in self.given.batches(5 * BATCH):
            self._index.add_items(vectors, np.array(numbers))

    def look_at(self, candidates: int) -> None:
        super().look_at(candidates)
        self._index.set_ef(candidates)

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            numbers, _ = self._index.knn_query(query, k=LIMIT, num_threads=1)
            return [int(number) for number in numbers[0]]

        return ask

    def disk(self) -> int:
        path = Path(self.given.folder) / "index"
        self._index.save_index(str(path))
        return path.stat().st_size

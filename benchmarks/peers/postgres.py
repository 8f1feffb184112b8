"""Libraries that keep vectors in PostgreSQL with pgvector, too."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import CANDIDATES_BUILDING, LIMIT, NEIGHBOURS, Ask, Given, Peer


class _InPostgres(Peer):
    def disk(self) -> None:
        return None


class Vecs(_InPostgres):
    """Supabase's vecs: `upsert` of everything, then `create_index`."""

    packages = ("vecs",)

    def __init__(self, given: Given) -> None:
        import vecs

        super().__init__(given)
        self._client = vecs.create_client(given.url)
        self._photos = self._client.get_or_create_collection("photos", dimension=given.vectors.shape[1])

    def insert(self) -> None:
        self._photos.upsert(
            (str(number), vector, told)
            for numbers, vectors, tolds in self.given.batches()
            for number, vector, told in zip(numbers, vectors, tolds, strict=True)
        )

    def build(self) -> None:
        from vecs.collection import IndexArgsHNSW, IndexMeasure, IndexMethod

        self._photos.create_index(
            measure=IndexMeasure.cosine_distance,
            method=IndexMethod.hnsw,
            index_arguments=IndexArgsHNSW(m=NEIGHBOURS, ef_construction=CANDIDATES_BUILDING),
        )

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            rows = self._photos.query(
                query, limit=LIMIT, include_value=True, include_metadata=True, ef_search=self.candidates
            )
            return [int(row[0]) for row in rows]

        return ask


class Langchain(_InPostgres):
    """langchain-postgres: `PGVectorStore.add_embeddings`, then `apply_vector_index`."""

    packages = ("langchain-postgres",)

    def __init__(self, given: Given) -> None:
        from langchain_postgres import PGEngine

        super().__init__(given)
        self._engine = PGEngine.from_connection_string(given.url.replace("postgresql://", "postgresql+psycopg://", 1))
        self._engine.init_vectorstore_table("photos", given.vectors.shape[1])
        self._store = self._opened()

    def insert(self) -> None:
        for _, vectors, tolds in self.given.batches():
            self._store.add_embeddings([told["uri"] for told in tolds], vectors.tolist(), tolds)

    def build(self) -> None:
        from langchain_postgres.v2.indexes import HNSWIndex

        self._store.apply_vector_index(HNSWIndex(m=NEIGHBOURS, ef_construction=CANDIDATES_BUILDING))

    def look_at(self, candidates: int) -> None:
        super().look_at(candidates)
        self._store = self._opened()

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            found = self._store.similarity_search_with_score_by_vector(query.tolist(), k=LIMIT)
            return [document.metadata["number"] for document, _ in found]

        return ask

    def _opened(self) -> Any:
        from langchain_core.embeddings import DeterministicFakeEmbedding
        from langchain_postgres import PGVectorStore
        from langchain_postgres.v2.indexes import HNSWQueryOptions

        return PGVectorStore.create_sync(
            self._engine,
            # asked for nothing, as all vectors are there
            DeterministicFakeEmbedding(size=self.given.vectors.shape[1]),
            "photos",
            index_query_options=HNSWQueryOptions(ef_search=self.candidates),
        )


class LlamaIndex(_InPostgres):
    """llama-index: `PGVectorStore.add` without an index, which is quicker than its tutorial's way, then with one."""

    packages = ("llama-index-vector-stores-postgres",)

    def insert(self) -> None:
        from llama_index.core.schema import TextNode

        store = self._opened(with_index=False)
        for numbers, vectors, tolds in self.given.batches():
            store.add(
                [
                    TextNode(id_=str(number), text=told["uri"], metadata=told, embedding=vector.tolist())
                    for number, vector, told in zip(numbers, vectors, tolds, strict=True)
                ]
            )

    def build(self) -> None:
        self._store = self._opened()
        self._store.get_nodes(node_ids=["0"])  # it is made at the first use

    def look_at(self, candidates: int) -> None:
        super().look_at(candidates)
        self._store = self._opened()

    def client(self) -> Ask:
        from llama_index.core.vector_stores.types import VectorStoreQuery

        def ask(query: Any) -> list[int]:
            found = self._store.query(VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=LIMIT))
            return [int(name) for name in found.ids or ()]

        return ask

    def _opened(self, with_index: bool = True) -> Any:
        from llama_index.vector_stores.postgres import PGVectorStore

        hnsw = {
            "hnsw_m": NEIGHBOURS,
            "hnsw_ef_construction": CANDIDATES_BUILDING,
            "hnsw_ef_search": self.candidates,
            "hnsw_dist_method": "vector_cosine_ops",
        }
        url = self.given.url
        return PGVectorStore(
            connection_string=url.replace("postgresql://", "postgresql+psycopg2://", 1),
            async_connection_string=url.replace("postgresql://", "postgresql+asyncpg://", 1),
            table_name="photos",
            embed_dim=self.given.vectors.shape[1],
            use_jsonb=True,
            hnsw_kwargs=hnsw if with_index else None,
        )

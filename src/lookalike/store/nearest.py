"""The nearest neighbours of vectors: by the index or exactly, and never fewer than there are.

Without a filter, an ordered scan of the HNSW index gives a few more than were asked for, sorted again by distance.
With a filter, one statement looks at a sample of the files, and counts those that satisfy it up to a bound where they
seem rare: where they are few, all of them are compared, which is exact; where they are many, the index is walked as far
as it takes if they lie anywhere. Whatever comes back short is done again in the next slower way, at last exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from operator import itemgetter
from uuid import UUID

import psycopg

from lookalike.errors import DatabaseError, InvalidFilter
from lookalike.filters import Chosen, Where
from lookalike.store.conditions import Conditions
from lookalike.store.database import NO_OPTIONS, USUAL_OPTIONS, Database
from lookalike.store.models import StoredModel
from lookalike.store.pages import MOST_ROWS, Place, check_of, scope_of
from lookalike.store.round_trip import Rows, Statement
from lookalike.store.writing import half_vector
from lookalike.types import File, Hit, Result, Vector

EXACT_BELOW_BYTES = 3 << 20
"""Up to this heap size, about a thousand vectors, comparing all of them costs no more than walking the index."""

LEAST_EF_SEARCH = 100
MOST_EF_SEARCH = 1000
"""pgvector's own limit; beyond it the scan goes on iteratively."""

_LEAST_WALK = 20_000
_MOST_WALK = (1 << 31) - 1
_VISITS = 40
_FEW_MATCHES = 1000
_MOST_MATCHES = 100_000
_SAMPLE = 128
_LEAST_SAMPLED = 4
_BYTES_PER_VECTOR = 8192 / 3
_LONGEST_LIST = 500
_MOST_SEEN_FEW = 1000
_WORTH_A_CONNECTION = 25

_EXACTLY = "compare everything, or all that satisfies the filter"
_COMPARING_FEW = "compare all that satisfies the filter if that is little, else find nothing"
_WALKING = "walk the index until there is enough; under a filter only if much satisfies it"
_WALKING_AS_FAR_AS_KEPT = "walk the index as far as candidates are kept"

_NO_CONDITIONS = Conditions(None, None)
_NEAREST_FIRST = itemgetter(3, 2, 4, 6)
"""Rows by distance, image, URI and collection."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One vector to search with.

    Attributes:
        leave_out: images that are not to be found, usually the query itself.
        query: what is searched for, in words, for the result to repeat.
    """

    vector: Vector
    leave_out: Sequence[UUID] = ()
    query: str = ""


_seen_few: dict[int, None] = {}
"""What kept few files when it was last searched with, the latest last. It may keep more by now, or in another database:
then the search that trusts in it comes back with nothing, and is done as if nothing were known."""


def _note_whether_few(scope: int, few: bool) -> None:
    _seen_few.pop(scope, None)
    if few:
        _seen_few[scope] = None
        if len(_seen_few) > _MOST_SEEN_FEW:
            for oldest in list(_seen_few)[:-_MOST_SEEN_FEW]:
                _seen_few.pop(oldest, None)


def nearest(
    database: Database,
    stored: StoredModel,
    vector: Vector,
    *,
    limit: int,
    exact: bool | None = None,
    ef_search: int | None = None,
    leave_out: UUID | None = None,
    query: str = "",
) -> Result:
    """The `limit` images nearest to `vector`, of all there are; the arguments are those of `nearest_to_each`."""
    ask = Ask(vector, () if leave_out is None else (leave_out,), query)
    return nearest_to_each(database, stored, [ask], limit=limit, exact=exact, ef_search=ef_search)[0]


def nearest_to_each(
    database: Database,
    stored: StoredModel,
    asks: Sequence[Ask],
    *,
    limit: int,
    exact: bool | None = None,
    ef_search: int | None = None,
    where: Where | None = None,
    among: Chosen | None = None,
    min_similarity: float | None = None,
    after: str | None = None,
) -> list[Result]:
    """For each vector the `limit` images nearest to it, by distance and then by id; fewer only where no more exist.

    All of them travel in one round trip, in a transaction of their own. The options of the scan are nobody else's.

    The index compares rounded, normalised vectors, so that neighbours closer than 1e-4 may swap and fall over the
    edge: a margin is fetched and sorted again by exact distance.

    Args:
        exact: compare every vector; None leaves it to the size of the model, and to how many files match.
        ef_search: how many candidates the index scan keeps, 1 to 1000; by default as many as the limit needs.
        where: what a file must satisfy for its image to be found; the hit shows the file that does.
        among: images to search among.
        min_similarity: leave out hits below it. It never makes a search go on for longer.
        after: `Result.after` of the page before, of a search for the same.

    Raises:
        InvalidFilter: `after` is of another search.
    """
    if not asks:
        return []
    place = None
    scope = scope_of(stored.model.name, where, among)
    if after is not None:
        place = Place.of(after, check_of(scope, asks[0].query))
        # with what was shown in a list, a walk can go on; a list is not for long
        if place.distance is not None or place.seen + limit > _LONGEST_LIST:
            exact = True
    small = stored.bytes <= EXACT_BELOW_BYTES
    left_out = max([len(ask.leave_out) for ask in asks])
    frame = (stored, database.vector_schema, min(limit, MOST_ROWS), ef_search, left_out, min_similarity)
    if where is None and among is None and place is None:
        plan = _plan_of_everything(*frame)
    else:
        plan = _Plan(*frame, Conditions(where, among), place)
    started = time.perf_counter()
    exact = (small if exact is None else exact) or not stored.index_ready
    ways = [_EXACTLY] if exact else plan.ways
    if plan.filters and not exact and scope in _seen_few:
        ways = [_COMPARING_FEW, *ways]
    way, *others = ways
    answers = plan.ask(database, asks, way)
    completed: dict[int, bool] = {}
    for way in others:
        # a damaged or bounded walk may end early, and only a full scan knows that there is no more
        short = [number for number, answer in enumerate(answers) if plan.is_short(answer)]
        if not short:
            break
        again = plan.ask(database, [asks[number] for number in short], way)
        for number, answer in zip(short, again, strict=True):
            if way is _EXACTLY:
                completed[number] = plan.filters or answer.found > answers[number].found
            answers[number] = answer
    if plan.filters and not exact:
        _note_whether_few(scope, answers[0].exact and not completed)
    seconds = (time.perf_counter() - started) / len(asks)
    results = []
    for number, (ask, answer) in enumerate(zip(asks, answers, strict=True)):
        # the walk that ended early found everything after all, but that took a full scan to know
        walked = not answer.exact or number in completed
        is_cut = answer.found == plan.limit and len(answer.hits) == answer.found
        results.append(
            Result(
                model=stored.model.name,
                query=ask.query,
                hits=tuple(answer.hits),
                exact=answer.exact,
                index=stored.index if walked else None,
                ef_search=plan.ef_search if walked else None,
                completed=completed.get(number, False),
                seconds=seconds,
                _after=partial(_token, place, answer, scope, ask.query) if is_cut else None,
            )
        )
    return results


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one ask was answered.

    Attributes:
        exact: whether every candidate was compared.
        candidates: with a filter, how many there were before those to leave out were taken away.
        found: how many images were found, at most as many as were asked for.
        hits: those of them that are near enough.
        distance: of the last hit, as the database gave it.
    """

    exact: bool
    candidates: int
    found: int
    hits: list[Hit]
    distance: float


def _token(before: Place | None, answer: _Answer, scope: int, query: str) -> str:
    """Where a page ends that is cut at its limit, as callers hand it back."""
    images = [hit.image_id for hit in answer.hits]
    place = (before or Place(0)).after(images, answer.distance if answer.exact else None)
    return place.token(check_of(scope, query))


class _Plan:
    """Searches of one kind: their statements, the options of those, and what both bind, but for the vectors.

    Args:
        vector_schema: the schema that pgvector lies in, quoted.
        left_out: the largest number of images that one of the searches is not to find.
        floor: the least similarity.
        place: where the page before ended.

    Attributes:
        ways: of searching, the fastest first; the next one is for what has come back short.
    """

    def __init__(
        self,
        stored: StoredModel,
        vector_schema: str,
        limit: int,
        ef_search: int | None,
        left_out: int,
        floor: float | None,
        conditions: Conditions = _NO_CONDITIONS,
        place: Place | None = None,
    ) -> None:
        self._stored = stored
        self._vector_schema = vector_schema
        self._conditions = conditions
        self._place = place
        self.limit = limit
        seen = place.seen if place else 0
        # Part of the statement and not bound to it: a plan that is made once must know them.
        self._left_out = left_out
        self._all = limit + left_out
        self._fetch = self._all + max(10, limit // 10)
        if ef_search is not None:  # a margin beyond it would have the walk go on
            self._fetch = max(self._all, min(self._fetch, ef_search))
        self._needed = self._fetch + seen
        self._rows = rows = max(stored.bytes / _BYTES_PER_VECTOR, 1)
        # An exact search costs as many comparisons as files match, a walk as many steps as it takes to come upon
        # enough of them; as measured, a step costs four comparisons. Twice that many are still compared, which is
        # sure to be right.
        self._most = max(_FEW_MATCHES, math.isqrt(int(8 * self._needed * rows)))
        # The least share of all files that match where a walk is chosen, and with it the longest walk.
        self._least_share = min(self._most / rows, 1.0)
        # So many must be looked at that enough of them match, if the filter has nothing to do with the query.
        walk = math.ceil(self._needed / self._least_share) if conditions.sql else self._needed
        kept = (6 if conditions.sql else 3) * self._needed
        self.ef_search = ef_search or min(max(LEAST_EF_SEARCH, kept), MOST_EF_SEARCH)
        self._floor = -math.inf if floor is None else floor
        self._parameters = dict(conditions.parameters)
        if place is not None:
            last = {"after_distance": place.distance, "after_id": place.image_id} if place.distance is not None else {}
            self._parameters |= {
                **last,
                "shown": [place.shown[first : first + 8] for first in range(0, len(place.shown), 8)],
            }
        options = {
            **USUAL_OPTIONS,
            "hnsw.ef_search": str(int(self.ef_search)),
            "hnsw.max_scan_tuples": str(min(max(_LEAST_WALK, _VISITS * walk), _MOST_WALK)),
            "enable_seqscan": "off",
            "enable_sort": "off",
            # Ranges take the index on their key only if they are planned with it, and planning takes its time. What is
            # equal has an index anyhow, and that it is rare is known before it is looked up.
            "plan_cache_mode": "force_generic_plan" if conditions.equality else "force_custom_plan",
        }
        self._options = {
            _EXACTLY: NO_OPTIONS,
            _WALKING: options,
            # to be able to go on, the scan keeps what it passes by
            _WALKING_AS_FAR_AS_KEPT: {**options, "hnsw.iterative_scan": "off"},
            _COMPARING_FEW: options,
        }
        self.ways = [_WALKING, _EXACTLY]
        if not conditions.sql and self._needed <= self.ef_search:
            self.ways.insert(0, _WALKING_AS_FAR_AS_KEPT)

    def ask(self, database: Database, asks: Sequence[Ask], way: str) -> list[_Answer]:
        """What each ask is answered, in one round trip; many of them are spread over several connections."""
        exact = way is _EXACTLY
        statement = self._text(way)
        statements = [
            (statement, {**self._parameters, "query": half_vector(ask.vector), "leave_out": list(ask.leave_out)})
            for ask in asks
        ]
        options = self._options[way]

        def together(part: Sequence[Statement]) -> list[_Answer]:
            each = database.together(part, options)
            if not self.filters:
                for rows in each:
                    rows.sort(key=_NEAREST_FIRST)
            return [self._answer(rows, exact) for rows in each]

        try:
            if len(asks) < 2 * _WORTH_A_CONNECTION:
                return together(statements)
            with database.spare_connections(len(asks) // _WORTH_A_CONNECTION - 1) as spare:
                if not spare:
                    return together(statements)
                each = math.ceil(len(asks) / (1 + spare))
                parts = [statements[first : first + each] for first in range(0, len(asks), each)]
                with ThreadPoolExecutor(len(parts)) as threads:
                    return [answer for answers in threads.map(together, parts) for answer in answers]
        except DatabaseError as error:
            if self._conditions.has_own_query and isinstance(
                error.__cause__, psycopg.ProgrammingError | psycopg.DataError
            ):
                raise InvalidFilter(f"The select to search among fails: {str(error.__cause__).strip()}") from error
            raise

    @property
    def filters(self) -> bool:
        """Whether not every file passes."""
        return bool(self._conditions.sql)

    def is_short(self, answer: _Answer) -> bool:
        """Whether a walk has ended before it had found enough; of what a filter lets pass, the margin included."""
        enough = answer.candidates >= self._fetch if self.filters else answer.found >= self.limit
        return not (enough or answer.exact)

    def _answer(self, rows: Rows, exact: bool) -> _Answer:
        """The images that rows speak of; an image has a row for each of its files."""
        near: list[tuple[UUID, float, list[File], str | None]] = []
        files: list[File] = []
        candidates, found, image, before = 0, 0, None, math.nan
        for exact, candidates, image_id, distance, uri, key, collection, metadata, media_type in rows:  # noqa: B007
            if image_id is None:
                break
            if distance != before or image_id != image:
                found += 1
                image, before, files = image_id, distance, []
                if 1.0 - distance >= self._floor:
                    near.append((image_id, distance, files, media_type))
            files.append(File(uri, key, collection, metadata))
        hits = [Hit(image_id, 1.0 - distance, tuple(files), kind) for image_id, distance, files, kind in near]
        return _Answer(exact, candidates, found, hits, near[-1][1] if near else 0.0)

    def _text(self, way: str) -> str:
        if way is _WALKING_AS_FAR_AS_KEPT:
            return self._walking_as_far_as_kept
        if way is _COMPARING_FEW:
            return self._comparing_few
        return self._walking if way is _WALKING else self._exactly

    @cached_property
    def _exactly(self) -> str:
        everything = f"""
            select e.image_id, {self._defeated} as distance
              from {self._stored.vectors} e
             where {{condition}}
               and exists (select from lookalike.files f where f.image_id = e.image_id{{match}}){self._page}
             order by distance, e.image_id
             limit {self._all}
            """
        if not self._conditions.sql:
            return self._statement("", everything.format(condition="true", match=""), by_comparing_all="true")
        # a look-up each is cheaper than a look at everything as long as it is for a third
        most = max(self._most, min(math.ceil(self._rows / 3), _MOST_MATCHES))
        others = everything.format(condition="not (select yes from few)", match=f" and {self._conditions.check}")
        return self._few_or(most, f" union all ({others})", by_comparing_all="true")

    @cached_property
    def _walking_as_far_as_kept(self) -> str:
        # an image without files takes the place of another one here; then there are too few, and it is done otherwise
        return self._statement("", self._walk, by_comparing_all="false")

    @cached_property
    def _comparing_few(self) -> str:
        # to plan what follows where they are many takes longer than to compare a few
        return self._few_or(self._most, "", by_comparing_all="(select yes from few)")

    @cached_property
    def _walking(self) -> str:
        if not self._conditions.sql:
            # such an image is nobody's, and waits to be found again or removed
            has_files = "(select true from lookalike.files f where f.image_id = c.image_id limit 1)"
            return self._statement("", self._walk, by_comparing_all="false", wanted=has_files)
        check = self._conditions.check
        # Ids are hashes, so that the files first by id are as good as drawn by lot. Those near to the query tell how
        # many match elsewhere only if the filter has nothing to do with it: then enough of twice as many as it takes
        # match, and a walk that goes on would accept whichever it meets first. `limit 1` keeps the planner from making
        # a join of it, which has no order.
        sample = f"""
            sample as materialized (
                select count(*) filter (where s.matches) as matched, avg((s.matches is true)::int)::float8 as share
                  from (select ({check}) as matches from lookalike.files f order by f.image_id limit {_SAMPLE}) s
            ), many as materialized (
                select matched >= {_LEAST_SAMPLED} and share >= {self._least_share} as yes from sample
            ), """
        walk = f"""
            select w.image_id, w.distance
              from (select e.image_id, {self._defeated} as distance
                      from {self._stored.vectors} e
                     where not (select yes from few){self._page}
                     order by {self._distance}
                     limit (select ceil({2 * self._needed} / greatest(share, {self._least_share})) from sample)) w
             where (select true from lookalike.files f where f.image_id = w.image_id and {check} limit 1)
             limit {self._fetch}
            """
        return self._few_or(
            self._most,
            f" union all ({walk})",
            by_comparing_all="(select yes from few)",
            sample=sample,
            many="(select yes from many)",
        )

    def _few_or(self, most: int, others: str, *, by_comparing_all: str, sample: str = "", many: str = "false") -> str:
        """Compare what satisfies the filter, looked up by id, if that is no more than `most`; else do as `others` say.

        Args:
            sample: tables by which `many` tells that it is more, without counting.
        """
        tables = f"""{self._conditions.tables}{sample}
            matching as materialized (
                select f.image_id from lookalike.files f
                 where not {many} and {self._conditions.sql} limit {most + 1}
            ), few as materialized (
                select not {many} and count(*) <= {most} as yes from matching
            ), """
        few = f"""
            select e.image_id, {self._defeated} as distance
              from {self._stored.vectors} e
             where e.image_id = any (array(select image_id from matching where (select yes from few))){self._page}
             order by distance, e.image_id
             limit {self._all}
            """
        return self._statement(tables, f"({few}){others}", by_comparing_all=by_comparing_all)

    @property
    def _walk(self) -> str:
        return f"""
            select e.image_id, {self._defeated} as distance
              from {self._stored.vectors} e
             where true{self._page}
             order by {self._distance}
             limit {self._fetch}
            """

    def _statement(self, tables: str, candidates: str, *, by_comparing_all: str, wanted: str = "true") -> str:
        """A row for each file of those candidates that are wanted. Each begins with whether every candidate was
        compared and, with a filter, how many of them there were; then there is one row at least, and they are sorted.
        """
        number, rows, order = "0", "found n join lookalike.files f using (image_id)", ""
        if self._conditions.sql:
            number = "(select count(*) from nearest)"
            rows = f"(values (1)) as at_least_one left join ({rows}) on true"
            order = f"order by n.distance, n.image_id, ({self._conditions.check}) is not true, f.uri, f.collection"
        if self._left_out:
            wanted += " and c.image_id <> all(%(leave_out)s::uuid[])"
        return f"""
            with {tables}nearest as ({candidates}),
            found as (
                -- `offset 0`, as `limit 1`, keeps the order, and what is looked up from being more than is shown
                select c.image_id, c.distance
                  from (select * from nearest order by distance, image_id offset 0) c
                 where {wanted}
                 limit {self.limit}
            )
            select {by_comparing_all}, {number}, n.image_id, n.distance, f.uri, f.key, f.collection, f.metadata,
                   (select i.media_type from lookalike.images i where i.image_id = n.image_id)
              from {rows} {order}
            """

    @property
    def _distance(self) -> str:
        return f"(e.embedding operator({self._vector_schema}.<=>) %(query)s)"

    @property
    def _defeated(self) -> str:
        """The distance as an expression that the index does not hold. The planner cannot use the index to sort by it,
        nor take the index at its word that what a relaxed scan gives is sorted already."""
        return f"{self._distance} + 0"

    @property
    def _page(self) -> str:
        if self._place is None:
            return ""
        page = ""
        if self._place.shown:
            page += " and substr(uuid_send(e.image_id), 1, 8) not in (select unnest(%(shown)s::bytea[]))"
        if self._place.distance is not None:
            page += f" and ({self._distance}, e.image_id) > (%(after_distance)s, %(after_id)s)"
        return page


_plan_of_everything = lru_cache(64)(_Plan)
"""Most searches in a row are of one kind, so that what they send is written once."""

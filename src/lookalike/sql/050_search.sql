-- The machinery of the analysts' searches, which 060_api.sql gives names and arguments: which model is meant, which
-- images a condition leaves, and the nearest of them. All of it is called from there alone, with the owner's rights.
--
-- A search gives as many rows as were asked for wherever so many exist:
--   * few images match the condition: they are compared one by one;
--   * many match, or there is no condition: the HNSW index is walked, iteratively, until enough have come;
--   * fewer came than were asked for: everything is compared.
-- Options that a function sets for itself do not outlive it: PostgreSQL's own are named in its SET clause as well, those of
-- pgvector are put back by hand.

create or replace function lookalike.searched_model(model text) returns lookalike.models
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    found_model lookalike.models;
begin
    select m.* into found_model
      from lookalike.models m
     where case when searched_model.model is null then m.state = 'active' else m.name = searched_model.model end;
    if found_model.model_id is null and searched_model.model is null then
        raise exception 'no model is active yet'
            using errcode = 'undefined_object', hint = 'Bring in pictures first: lookalike ingest FOLDER';
    elsif found_model.model_id is null then
        raise exception 'there is no model "%"', searched_model.model
            using errcode = 'undefined_object',
                  hint = coalesce('There are: ' || (select string_agg(m.name, ', ' order by m.name)
                                                      from lookalike.models m where m.state <> 'dropped') || '.',
                                  'Bring in pictures first: lookalike ingest FOLDER');
    elsif found_model.state = 'dropped' then
        raise exception 'the vectors of model "%" were dropped', found_model.name
            using errcode = 'undefined_object',
                  hint = format('Name another model, or embed the pictures again: lookalike models backfill %s',
                                found_model.name);
    end if;
    return found_model;
end
$$;

comment on function lookalike.searched_model is
    'The row of a model, by default of the active one. Raises where it does not exist or was dropped.';


create or replace function lookalike.stored_embedding(
    image_id uuid, chosen lookalike.models
) returns @extschema:vector@.halfvec
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    found_embedding @extschema:vector@.halfvec;
    others          text;
begin
    if stored_embedding.image_id is null then
        return null;
    end if;
    select e.embedding into found_embedding
      from lookalike.embeddings e
     where e.image_id = stored_embedding.image_id and e.model_id = chosen.model_id;
    if found then
        return found_embedding;
    end if;
    select string_agg(m.name, ', ' order by m.name) into others
      from lookalike.embeddings e
      join lookalike.models m using (model_id)
     where e.image_id = stored_embedding.image_id;
    if others is not null then
        raise exception 'image % is embedded under %, not under %: two models cannot be compared',
                        stored_embedding.image_id, others, chosen.name
            using errcode = 'data_exception',
                  hint = format('Say model => ''%s'', or run: lookalike models backfill %s',
                                split_part(others, ', ', 1), chosen.name);
    elsif exists (select from lookalike.images i where i.image_id = stored_embedding.image_id) then
        raise exception 'image % has no embedding', stored_embedding.image_id
            using errcode = 'no_data_found',
                  hint = format('Embed what is pending: lookalike models backfill %s. What failed, and why, is in '
                                'lookalike.failures.', chosen.name);
    end if;
    raise exception 'there is no image %', stored_embedding.image_id
        using errcode = 'no_data_found', hint = 'The ids of all images are in lookalike.library.';
end
$$;

comment on function lookalike.stored_embedding is
    'The vector of an image under a model; null for null. Raises where there is none, and names the models that it has.';


create or replace function lookalike.checked_query(
    query @extschema:vector@.halfvec, chosen lookalike.models
) returns @extschema:vector@.halfvec
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    width  constant integer := 1024;
    given  constant integer := @extschema:vector@.vector_dims(query);
    padded @extschema:vector@.halfvec := query;
begin
    if query is null then
        return null;
    end if;
    if given = chosen.dimensions and given < width then
        padded := (query::real[] || array_fill(0::real, array[width - given]))::@extschema:vector@.halfvec;
    elsif given <> width then
        raise exception 'the query has % numbers, a vector of % has %', given, chosen.name, chosen.dimensions
            using errcode = 'data_exception', hint = 'Embed the query with the same model: lookalike embed "…"';
    elsif chosen.dimensions < width and @extschema:vector@.l2_norm(
              @extschema:vector@.subvector(query, chosen.dimensions + 1, width - chosen.dimensions)) > 0 then
        raise exception 'the query has more than the % numbers of a vector of %', chosen.dimensions, chosen.name
            using errcode = 'data_exception',
                  hint = format('Numbers beyond these must be 0. Embed the query with %s: lookalike embed "…"',
                                chosen.name);
    end if;
    if not @extschema:vector@.l2_norm(padded) > 0 then
        raise exception 'the query is all zero, which is equally far from everything'
            using errcode = 'data_exception',
                  hint = 'Numbers below 6e-8 become zero as half precision; the length of a vector plays no role.';
    end if;
    return padded;
end
$$;

comment on function lookalike.checked_query is
    'A query in the form of the stored vectors, zero-padded to 1024 numbers. Raises where it cannot be one of the model.';


create or replace function lookalike.check_search(k integer, filter jsonb) returns void
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    if k is null or k < 1 then
        raise exception 'k is %, it must be at least 1', coalesce(k::text, 'null')
            using errcode = 'invalid_parameter_value', hint = 'k says how many images are wanted.';
    end if;
    if jsonb_typeof(filter) <> 'object' then
        raise exception 'the filter is a JSON %, it must be an object', jsonb_typeof(filter)
            using errcode = 'invalid_parameter_value', hint = 'For example: filter => ''{"artist": "Monet"}''';
    end if;
end
$$;

comment on function lookalike.check_search is 'Raises where arguments of a search make no sense.';


-- Comparing c vectors one by one costs c; walking the index until 3 * k of them match costs 3 * k * rows / c steps, each
-- as dear as fifteen comparisons (measured). So the walk is cheaper from c = sqrt(45 * k * rows) on, and below a thousand
-- nothing is dear.
create or replace function lookalike.few(k bigint, rows double precision) returns integer
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select greatest(1000, least(1e6, sqrt(45.0 * k * rows)))::integer
$$;

comment on function lookalike.few is
    'Up to how many images that satisfy a condition are compared one by one in a search for k of so many rows.';


create or replace function lookalike.candidates(
    model_id integer, k integer, filter jsonb, among uuid[]
) returns uuid[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- a page holds three vectors; unlike statistics, the size is never out of date
    rows  constant double precision := pg_relation_size('lookalike.embeddings_' || candidates.model_id) / 2700.0;
    most  constant integer := lookalike.few(k, rows);
    matching uuid[];
begin
    if among is not null and cardinality(among) <= most then
        return array(select i.image_id
                       from lookalike.images i
                      where i.image_id = any (among)
                        and exists (select from lookalike.files f
                                     where f.image_id = i.image_id and (filter is null or f.metadata @> filter)));
    elsif filter is null then
        return null;
    end if;
    -- counted no further than is needed to decide
    matching := array(select f.image_id from lookalike.files f where f.metadata @> filter limit most + 1);
    if cardinality(matching) > most then
        return null;
    elsif among is null then
        return matching;
    end if;
    return array(select i.image_id from unnest(matching) i (image_id) where i.image_id = any (among));
end
$$;

comment on function lookalike.candidates is
    'The images that satisfy filter and among, where they are so few that comparing each is cheapest; else null.';


create or replace function lookalike.nearest(
    model_id   integer,
    query      @extschema:vector@.halfvec,
    k          integer,
    filter     jsonb,
    among      uuid[],
    candidates uuid[],
    exact      boolean,
    leave_out  uuid
) returns table (
    image_id   uuid,
    similarity double precision,
    uri        text,
    key        text,
    collection text,
    metadata   jsonb
)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on
    set enable_sort = on
    set jit = off
as $$
#variable_conflict use_column
declare
    room   constant text := 'lookalike.embeddings_' || nearest.model_id;
    bytes  constant bigint := pg_relation_size(room);
    rows   constant double precision := greatest(bytes / 2700.0, 1);
    asked  constant bigint := k::bigint + (leave_out is not null)::integer;
    -- the index compares rounded, normalised vectors: neighbours closer than 1e-4 may swap and fall over the edge
    margin constant bigint := asked + greatest(10, k / 10);
    -- How many of all must be looked at, from the nearest on, so that enough of them match. Those that match are more
    -- than a few, so these will do if the condition has nothing to do with the query. If it has, and they lie
    -- elsewhere, the walk comes back short: going on and on would accept whichever of them it meets first.
    conditioned constant boolean := filter is not null or among is not null;
    walk   constant bigint := case when conditioned then greatest(67, ceil(asked * rows / lookalike.few(asked, rows)))
                                   else margin end;
    among_ constant text := case when among is null then '' else ' and coalesce(e.image_id = any ($4), false)' end;
    seen   bigint;
    came   bigint;
    before text[];
    ids       uuid[];
    distances double precision[];
begin
    -- up to 3 MiB, about a thousand vectors, comparing all costs no more than walking the index; so it does where a
    -- large part of all is wanted
    if candidates is null
       and coalesce(not exact, bytes > 3 << 20 and margin < bytes / 2700 / 4)
       and (select x.indisvalid from pg_index x where x.indexrelid = to_regclass(room || '_hnsw')) then
        -- what has seen so many is dearer than comparing all
        seen := case when conditioned then 3 * walk else greatest(20000, 4 * margin, bytes / 2700 / 8) end;
        -- Put back by hand: named in a `set` clause, as the others are, they would keep a dump from being restored by
        -- anybody but a superuser. An error takes them back by itself.
        perform '[1]'::@extschema:vector@.halfvec;  -- which loads the library that knows them
        before := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'),
                        current_setting('hnsw.max_scan_tuples'), current_setting('hnsw.scan_mem_multiplier')];
        perform set_config('hnsw.ef_search', least(greatest(100, 3 * walk), 1000)::text, true),
                set_config('hnsw.iterative_scan',
                           case when conditioned and 3 * walk <= 1000 then 'off' else 'relaxed_order' end, true),
                set_config('hnsw.max_scan_tuples', least(seen, 2147483647)::text, true),
                set_config('hnsw.scan_mem_multiplier',
                           least(1000, ceil(1 + seen * 300.0 / pg_size_bytes(current_setting('work_mem'))))::text,
                           true),
                set_config('enable_seqscan', 'off', true),
                set_config('enable_sort', 'off', true);
        -- what filters is a scalar sub-select, which no planner turns into a join that abandons the index
        execute format(
            'with near as materialized ('
            -- + 0, else the planner takes the index at its word that these come sorted, and does not sort them again
            ' select e.image_id, (e.embedding operator(@extschema:vector@.<=>) $1) + 0 as distance'
            '   from %1$s e'
            '  where (select true from lookalike.files f where f.image_id = e.image_id%2$s limit 1) is not null%3$s'
            '  order by e.embedding operator(@extschema:vector@.<=>) $1'
            '  limit $5'
            '), chosen as ('
            ' select image_id, distance from near where image_id is distinct from $6'
            '  order by distance, image_id limit $2)'
            ' select array_agg(image_id order by distance, image_id), array_agg(distance order by distance, image_id),'
            '        (select count(*) from near)'
            '   from chosen',
            room, case when filter is null then '' else ' and f.metadata @> $3' end, among_)
           into ids, distances, came
          using query, k, filter, among, margin, leave_out;
        perform set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true),
                set_config('hnsw.ef_search', before[1], true), set_config('hnsw.iterative_scan', before[2], true),
                set_config('hnsw.max_scan_tuples', before[3], true),
                set_config('hnsw.scan_mem_multiplier', before[4], true);
    end if;

    -- a bounded walk, or one of a damaged index, may end early: only comparing everything knows that there is no more
    if ids is null or cardinality(ids) < k or conditioned and came < margin then
        execute format(
            'with chosen as ('
            ' select e.image_id, e.embedding operator(@extschema:vector@.<=>) $1 as distance'
            '   from %1$s e'
            '  where %2$s and e.image_id is distinct from $6'
            -- an expression that the index does not hold keeps the planner from using it
            '  order by (e.embedding operator(@extschema:vector@.<=>) $1) + 0, e.image_id'
            '  limit $2)'
            ' select array_agg(image_id order by distance, image_id), array_agg(distance order by distance, image_id)'
            '   from chosen',
            room,
            case when candidates is not null then 'e.image_id = any ($5)'
                 else 'exists (select from lookalike.files f where f.image_id = e.image_id'
                      || case when filter is null then ')' else ' and f.metadata @> $3)' end || among_ end)
           into ids, distances
          using query, k, filter, among, candidates, leave_out;
    end if;

    return query
    select n.image_id, 1 - n.distance, f.uri, f.key, f.collection, f.metadata
      from unnest(ids, distances) with ordinality n (image_id, distance, rank)
     cross join lateral (select s.uri, s.key, s.collection, s.metadata
                           from lookalike.files s
                          where s.image_id = n.image_id and (nearest.filter is null or s.metadata @> nearest.filter)
                          order by s.uri, s.collection
                          limit 1) f
     order by n.rank;
end
$$;

comment on function lookalike.nearest is
    'The k images nearest to a vector, by distance and then by id, each with the file that matched the filter.';

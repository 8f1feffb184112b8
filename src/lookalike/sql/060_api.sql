-- The analysts' API: what readers may call. Each function runs with the owner's rights, because readers have none on the
-- tables in which the vectors of all models lie, and checks what it is given. `stable` matters: a volatile function in
-- ORDER BY would cost the search its index.
--
-- Which of them readers may call is said in store/rights.py.

create or replace function lookalike.known_query(
    model text, kind text, digest bytea
) returns @extschema:vector@.halfvec
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    return (select q.embedding
              from lookalike.queries q
              join lookalike.models m using (model_id)
             where m.name = known_query.model and m.state <> 'dropped'
               and q.kind = known_query.kind and q.digest = known_query.digest);
end
$$;

comment on function lookalike.known_query is
    'The embedding of a query that was asked before, by the SHA-256 of its text or bytes; null where it was not.';


create or replace function lookalike.query_embedding(
    text text, model text default null
) returns @extschema:vector@.halfvec
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    chosen constant lookalike.models := lookalike.searched_model(model);
    -- as Python's str.split sees it, which knows more white space than \s does
    words  constant text := btrim(regexp_replace(
        query_embedding.text,
        '[\u0009-\u000D\u001C-\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]+', ' ', 'g'));
    found_embedding @extschema:vector@.halfvec;
begin
    if words is null then
        return null;
    end if;
    found_embedding := lookalike.known_query(chosen.name, 'text', sha256(convert_to(words, 'UTF8')));
    if found_embedding is null then
        raise exception 'the text "%" has no embedding under % yet', left(words, 200), chosen.name
            using errcode = 'no_data_found',
                  hint = format('Run: lookalike query add %s%s',
                                case when words ~ '["$`\\!]' then '''' || replace(words, '''', '''\''''') || ''''
                                     else '"' || words || '"' end,
                                case when chosen.state = 'active' then '' else ' --model ' || chosen.name end);
    end if;
    return found_embedding;
end
$$;

comment on function lookalike.query_embedding is
    'The vector of a text that was embedded before (lookalike query add "…"), under the active model unless one is named.';


create or replace function lookalike.image_embedding(
    image_id uuid, model text default null
) returns @extschema:vector@.halfvec
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    return lookalike.stored_embedding(image_embedding.image_id, lookalike.searched_model(model));
end
$$;

comment on function lookalike.image_embedding is
    'The vector of a stored image, under the active model unless one is named.';


create or replace function lookalike.cosine_similarity(
    a uuid, b uuid, model text default null
) returns double precision
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    chosen constant lookalike.models := lookalike.searched_model(model);
begin
    if a is null or b is null then
        return null;
    end if;
    return 1 - (lookalike.stored_embedding(a, chosen)
                operator(@extschema:vector@.<=>) lookalike.stored_embedding(b, chosen));
end
$$;

comment on function lookalike.cosine_similarity is
    'Cosine similarity of two stored images, -1 to 1, under the active model unless one is named.';


create or replace function lookalike.search_vector(
    query  @extschema:vector@.halfvec,
    model  text,
    k      integer default 10,
    filter jsonb default null,
    among  uuid[] default null,
    exact  boolean default null
) returns table (
    image_id uuid, similarity double precision, uri text, key text, collection text, metadata jsonb
)
    language plpgsql
    stable
    security definer
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    chosen lookalike.models;
    wanted constant jsonb := nullif(filter, '{}');
begin
    perform lookalike.check_search(k, filter);
    if model is null then
        raise exception 'a vector does not say which model it is of: model must be given'
            using errcode = 'null_value_not_allowed',
                  hint = 'Models: select name from lookalike.models. Vectors of two models cannot be compared.';
    end if;
    chosen := lookalike.searched_model(model);
    if query is null then
        return;
    end if;
    return query
    select n.*
      from lookalike.nearest(chosen.model_id, lookalike.checked_query(query, chosen), k, wanted, among,
                             case when exact is distinct from false
                                  then lookalike.candidates(chosen.model_id, k, wanted, among) end,
                             exact, null) n;
end
$$;

comment on function lookalike.search_vector(@extschema:vector@.halfvec, text, integer, jsonb, uuid[], boolean) is
    'The k images nearest to a vector of the model that is named.';


create or replace function lookalike.search_vector(
    query  double precision[],
    model  text,
    k      integer default 10,
    filter jsonb default null,
    among  uuid[] default null,
    exact  boolean default null
) returns table (
    image_id uuid, similarity double precision, uri text, key text, collection text, metadata jsonb
)
    language plpgsql
    stable
    security definer
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select n.* from lookalike.search_vector(query::@extschema:vector@.halfvec, model, k, filter, among, exact) n;
end
$$;

comment on function lookalike.search_vector(double precision[], text, integer, jsonb, uuid[], boolean) is
    'The k images nearest to a vector, given as an array of numbers, of the model that is named.';


create or replace function lookalike.search_vector(
    query  text,
    model  text,
    k      integer default 10,
    filter jsonb default null,
    among  uuid[] default null,
    exact  boolean default null
) returns table (
    image_id uuid, similarity double precision, uri text, key text, collection text, metadata jsonb
)
    language plpgsql
    stable
    security definer
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
begin
    if query !~ '^\s*\[' then
        raise exception 'a vector reads [0.1,0.2,…]'
            using errcode = 'invalid_text_representation',
                  hint = 'To search by a text: select * from lookalike.search_text(''a blue house'')';
    end if;
    return query
    select n.* from lookalike.search_vector(query::@extschema:vector@.halfvec, model, k, filter, among, exact) n;
end
$$;

comment on function lookalike.search_vector(text, text, integer, jsonb, uuid[], boolean) is
    'The k images nearest to a vector, written [0.1,0.2,…], of the model that is named.';


create or replace function lookalike.search_text(
    text   text,
    k      integer default 10,
    model  text default null,
    filter jsonb default null,
    among  uuid[] default null,
    exact  boolean default null
) returns table (
    image_id uuid, similarity double precision, uri text, key text, collection text, metadata jsonb
)
    language plpgsql
    stable
    security definer
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
declare
    chosen constant lookalike.models := lookalike.searched_model(model);
begin
    return query
    select n.*
      from lookalike.search_vector(lookalike.query_embedding(search_text.text, chosen.name), chosen.name, k, filter,
                                   among, exact) n;
end
$$;

comment on function lookalike.search_text is
    'The k images that fit a text best. The text must have been embedded before: lookalike query add "…"';


create or replace function lookalike.similar_many(
    image_ids    uuid[],
    k            integer default 10,
    model        text default null,
    filter       jsonb default null,
    among        uuid[] default null,
    exact        boolean default null,
    include_self boolean default false
) returns table (
    query_id uuid, rank integer,
    image_id uuid, similarity double precision, uri text, key text, collection text, metadata jsonb
)
    language plpgsql
    stable
    security definer
    rows 100
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    chosen     lookalike.models;
    candidates uuid[];
    wanted     constant jsonb := nullif(filter, '{}');
    asked      uuid;
begin
    perform lookalike.check_search(k, filter);
    chosen := lookalike.searched_model(model);
    if image_ids is null then
        return;
    end if;
    -- the same for all of them
    if exact is distinct from false then
        candidates := lookalike.candidates(chosen.model_id, k, wanted, among);
    end if;
    foreach asked in array image_ids loop
        continue when asked is null;
        return query
        select asked, (row_number() over ())::integer, n.*
          from lookalike.nearest(chosen.model_id, lookalike.stored_embedding(asked, chosen), k, wanted, among,
                                 candidates, exact, case when not coalesce(include_self, false) then asked end) n;
    end loop;
end
$$;

comment on function lookalike.similar_many is
    'For each of several stored images the k most similar ones, ranked from 1.';


create or replace function lookalike.similar_images(
    image_id     uuid,
    k            integer default 10,
    model        text default null,
    filter       jsonb default null,
    among        uuid[] default null,
    exact        boolean default null,
    include_self boolean default false
) returns table (
    image_id uuid, similarity double precision, uri text, key text, collection text, metadata jsonb
)
    -- only here may an argument bear the name of a column that is returned
    language sql
    stable
    security definer
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
    select n.image_id, n.similarity, n.uri, n.key, n.collection, n.metadata
      from lookalike.similar_many(array[$1], $2, $3, $4, $5, $6, $7) n
     order by n.rank
$$;

comment on function lookalike.similar_images is
    'The k stored images most similar to one of them, which is left out itself unless include_self.';

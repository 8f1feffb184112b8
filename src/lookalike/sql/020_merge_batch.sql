-- The way in for vectors of which something may be known already. (Those of an import of which nothing is, neither places
-- nor images, are copied straight into the tables, which comes to the same: see store/importing.py.)
-- A writer copies rows into its own temporary table `lookalike_batch` and calls this in
-- the same transaction:
--
--     image_id uuid, sha256 bytea, media_type text, width integer, height integer, byte_size bigint,
--     collection text, uri text, fingerprint text, key text, metadata jsonb, exif jsonb,
--     model text, embedding halfvec(1024), changes text[], text text
--
-- Text is what was embedded together with the picture. A row without an embedding is one more file of an image that is known already. A row without sha256 is an image whose
-- bytes nobody here has seen; it is known by its URI. Images that lose their last file stay: the file that is theirs
-- now may be on its way, in the next batch or with another writer.
--
-- An embedding that is stored already stays, unless `replace` says that the rows are the owner's own order: vectors of
-- an import. Such rows have been made by somebody else from what lies at their URI, so that a row without sha256 is of
-- the image that is known to lie there, and what is known of a file's own state stays.

create or replace function lookalike.merged_metadata(stored jsonb, given jsonb) returns jsonb
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select case
        when given is null then stored
        when stored ? 'exif' then jsonb_build_object('exif', stored -> 'exif') || given
        else given
    end
$$;

comment on function lookalike.merged_metadata is
    'A file''s metadata after a source has given it anew: replaced, but for what was read from the picture itself.';

drop function if exists lookalike.merge_batch(text);  -- of older versions

create or replace function lookalike.merge_batch(
    model           text,
    replace         boolean default false,
    out abandoned   uuid[],  -- images that lost a file to this batch
    out unembedded  integer, -- files whose image has no embedding under the model, because somebody has deleted it
    out embedded    integer, -- embeddings that are new
    out replaced    integer  -- embeddings that were stored with other numbers, where these are to be replaced
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    -- A batch is small. Plans are kept, and the tables may have grown from nothing since they were made: their rows are
    -- looked up by their indexes whatever statistics say.
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
as $$
declare
    id    integer;
    known boolean;
begin
    select m.model_id into id from lookalike.models m where m.name = merge_batch.model;
    if not found then
        raise exception 'there is no model %', merge_batch.model using errcode = 'no_data_found';
    end if;
    if exists (select from pg_temp.lookalike_batch b where b.model is distinct from merge_batch.model) then
        raise exception 'a vector of another model was handed over as one of %', merge_batch.model
            using errcode = 'check_violation';
    end if;

    -- most batches of a first load meet nothing that is stored, and then all of this would find nothing
    known := exists (select from pg_temp.lookalike_batch b join lookalike.images i on i.image_id = b.image_id)
          or exists (select from pg_temp.lookalike_batch b join lookalike.images i on i.sha256 = b.sha256)
          or exists (select from pg_temp.lookalike_batch b join lookalike.files f on f.uri = b.uri);
    if known then
        -- images are found again by their bytes, whatever id they got when they were first seen
        update pg_temp.lookalike_batch b
           set image_id = i.image_id
          from lookalike.images i
         where i.sha256 = b.sha256 and i.image_id <> b.image_id;

        -- or by the place at which bytes turn up for the first time
        update pg_temp.lookalike_batch b
           set image_id = known.image_id
          from (select distinct on (n.sha256) n.sha256, i.image_id
                  from pg_temp.lookalike_batch n
                  join lookalike.files f using (collection, uri)
                  join lookalike.images i on i.image_id = f.image_id
                 where i.sha256 is null and n.sha256 is not null
                   and not exists (select from lookalike.images o where o.sha256 = n.sha256)
                 order by n.sha256, i.image_id) known
         where known.sha256 = b.sha256;

        -- what is known by its URI alone is whatever lies there, in this collection or else in another
        if merge_batch.replace then
            update pg_temp.lookalike_batch b
               set image_id = known.image_id
              from (select distinct on (n.collection, n.uri) n.collection, n.uri, f.image_id
                      from pg_temp.lookalike_batch n
                      join lookalike.files f on f.uri = n.uri
                     where n.sha256 is null
                     order by n.collection, n.uri, f.collection <> n.collection, f.collection) known
             where b.sha256 is null and b.collection = known.collection and b.uri = known.uri
               and b.image_id <> known.image_id;
        end if;

        -- An id made from a URI may be that of an image whose bytes turned up there and have moved on since: what lies
        -- there now is another picture.
        update pg_temp.lookalike_batch b
           set image_id = another.image_id
          from (select n.uri, gen_random_uuid() as image_id
                  from pg_temp.lookalike_batch n
                  join lookalike.images i on i.image_id = n.image_id and i.sha256 is not null
                 where n.sha256 is null
                   and not exists (select from lookalike.files f where f.image_id = n.image_id and f.uri = n.uri)
                 group by n.uri) another
         where b.sha256 is null and b.uri = another.uri;

        if merge_batch.replace then
            update pg_temp.lookalike_batch b
               set fingerprint = coalesce(b.fingerprint, f.fingerprint)
              from lookalike.files f
             where f.collection = b.collection and f.uri = b.uri and f.image_id = b.image_id;
        end if;

        -- what no source says anew stays, but for what was read from a picture that has changed
        update pg_temp.lookalike_batch b
           set key = coalesce(b.key, f.key),
               metadata = case
                   when merge_batch.replace
                       then case when f.image_id = b.image_id then f.metadata else f.metadata - 'exif' end
                            || coalesce(b.metadata, '{}')
                   else lookalike.merged_metadata(
                       case when f.image_id = b.image_id then f.metadata else f.metadata - 'exif' end, b.metadata)
               end
          from lookalike.files f
         where f.collection = b.collection and f.uri = b.uri;
    end if;

    -- ordered, so that two writers lock the same rows in the same order
    insert into lookalike.images (image_id, sha256, media_type, width, height, byte_size)
    select distinct on (b.image_id) b.image_id, b.sha256, b.media_type, b.width, b.height, b.byte_size
      from pg_temp.lookalike_batch b
     order by b.image_id, b.sha256
        on conflict (image_id) do update
       set sha256 = coalesce(excluded.sha256, images.sha256),
           media_type = coalesce(excluded.media_type, images.media_type),
           width = coalesce(excluded.width, images.width), height = coalesce(excluded.height, images.height),
           byte_size = coalesce(excluded.byte_size, images.byte_size)
     where excluded.sha256 is not null
       -- of an imported image only the digest is known until its bytes turn up
       and (images.sha256 is null
            or images.sha256 = excluded.sha256 and images.byte_size is null and excluded.byte_size is not null)
       -- that what lies at a URL is a video is known although nobody here has seen its bytes
        or excluded.sha256 is null and images.media_type is null and excluded.media_type is not null;

    if known then
        with moved as (
            delete from lookalike.files f
             using pg_temp.lookalike_batch b
             where f.collection = b.collection and f.uri = b.uri and f.image_id <> b.image_id
         returning f.image_id as was, b.image_id as now
        ), kept as (
            -- an image that was known by its URI turns out to be another one: what was paid for stays
            insert into lookalike.embeddings (image_id, model_id, embedding)
            select distinct on (m.now, e.model_id) m.now, e.model_id, e.embedding
              from moved m
              join lookalike.images i on i.image_id = m.was and i.sha256 is null
              join lookalike.images n on n.image_id = m.now and n.sha256 is not null
              join lookalike.embeddings e on e.image_id = m.was
             order by m.now, e.model_id
                on conflict (image_id, model_id) do nothing
         returning image_id, model_id
        ), told as (
            insert into lookalike.texts (image_id, model_id, collection, uri, text)
            select distinct on (k.image_id, k.model_id) k.image_id, k.model_id, t.collection, t.uri, t.text
              from kept k
              join moved m on m.now = k.image_id
              join lookalike.texts t on t.image_id = m.was and t.model_id = k.model_id
             order by k.image_id, k.model_id, t.uri
                on conflict (image_id, model_id) do nothing
        )
        select array_agg(distinct m.was) into abandoned from moved m;
    end if;

    insert into lookalike.files (image_id, collection, uri, fingerprint, key, metadata)
    select distinct on (b.collection, b.uri)
           b.image_id, b.collection, b.uri, b.fingerprint, b.key,
           coalesce(b.metadata, '{}')
               || case when b.exif is null then '{}' else jsonb_build_object('exif', b.exif) end
      from pg_temp.lookalike_batch b
     order by b.collection, b.uri
        on conflict (image_id, collection, uri) do update
       set fingerprint = excluded.fingerprint, key = excluded.key, metadata = excluded.metadata
     where (files.fingerprint, files.key, files.metadata)
           is distinct from (excluded.fingerprint, excluded.key, excluded.metadata);

    replaced := 0;
    if known and merge_batch.replace then
        update lookalike.embeddings e
           set embedding = b.embedding, created_at = now()
          from (select distinct on (n.image_id) n.image_id, n.embedding
                  from pg_temp.lookalike_batch n
                 where n.embedding is not null
                 order by n.image_id, n.uri) b
         where e.image_id = b.image_id and e.model_id = id
           and e.embedding operator(@extschema:vector@.<>) b.embedding;
        get diagnostics replaced = row_count;
    end if;

    -- a picture that is embedded together with another text than before has another vector
    if exists (select from pg_temp.lookalike_batch b where b.text is not null) then
        with told as (
            select distinct on (b.image_id) b.image_id, b.collection, b.uri, b.text, b.embedding
              from pg_temp.lookalike_batch b
             where b.text is not null and b.embedding is not null
             order by b.image_id, b.uri, b.collection
        ), noted as (
            insert into lookalike.texts (image_id, model_id, collection, uri, text)
            select t.image_id, id, t.collection, t.uri, t.text from told t
                on conflict (image_id, model_id) do update
               set collection = excluded.collection, uri = excluded.uri, text = excluded.text
        )
        update lookalike.embeddings e
           set embedding = t.embedding, created_at = now()
          from told t
         where e.image_id = t.image_id and e.model_id = id
           and e.embedding operator(@extschema:vector@.<>) t.embedding;
    end if;

    insert into lookalike.embeddings (image_id, model_id, embedding)
    select distinct on (b.image_id) b.image_id, id, b.embedding
      from pg_temp.lookalike_batch b
     where b.embedding is not null
     order by b.image_id, b.uri
        on conflict (image_id, model_id) do nothing;
    get diagnostics embedded = row_count;

    insert into lookalike.adaptations (image_id, model_id, changes)
    select distinct on (b.image_id) b.image_id, id, b.changes
      from pg_temp.lookalike_batch b
     where b.embedding is not null and cardinality(b.changes) > 0
     order by b.image_id
        on conflict (image_id, model_id) do nothing;

    delete from lookalike.failures f
     using pg_temp.lookalike_batch b
     where f.model = merge_batch.model and f.collection = b.collection and f.uri = b.uri;

    select count(distinct (b.collection, b.uri)) into unembedded
      from pg_temp.lookalike_batch b
     where b.embedding is null
       and not exists (select from lookalike.embeddings e where e.image_id = b.image_id and e.model_id = id);
end
$$;

comment on function lookalike.merge_batch is
    'Merge the rows of the temporary table lookalike_batch: images, files and embeddings of one model.';

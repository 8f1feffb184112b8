-- The one way in for vectors. A writer copies rows into its own temporary table `lookalike_batch` and calls this in
-- the same transaction:
--
--     image_id uuid, sha256 bytea, media_type text, width integer, height integer, byte_size bigint,
--     collection text, uri text, fingerprint text, model text, embedding halfvec(1024)
--
-- A row without an embedding is one more file of an image that is known already. Images that lose their last file stay:
-- the file that is theirs now may be on its way, in the next batch or with another writer.

create or replace function lookalike.merge_batch(
    model           text,
    out abandoned   uuid[],  -- images that lost a file to this batch
    out unembedded  integer  -- files whose image has no embedding under the model, because somebody has deleted it
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    id integer;
begin
    select m.model_id into id from lookalike.models m where m.name = merge_batch.model;
    if not found then
        raise exception 'there is no model %', merge_batch.model using errcode = 'no_data_found';
    end if;
    if exists (select from pg_temp.lookalike_batch b where b.model is distinct from merge_batch.model) then
        raise exception 'a vector of another model was handed over as one of %', merge_batch.model
            using errcode = 'check_violation';
    end if;

    -- images are found again by their bytes, whatever id they got when they were first seen
    update pg_temp.lookalike_batch b
       set image_id = i.image_id
      from lookalike.images i
     where i.sha256 = b.sha256 and i.image_id <> b.image_id;

    -- ordered, so that two writers lock the same rows in the same order
    insert into lookalike.images (image_id, sha256, media_type, width, height, byte_size)
    select distinct on (b.image_id) b.image_id, b.sha256, b.media_type, b.width, b.height, b.byte_size
      from pg_temp.lookalike_batch b
     order by b.image_id
        on conflict (image_id) do nothing;

    with moved as (
        delete from lookalike.files f
         using pg_temp.lookalike_batch b
         where f.collection = b.collection and f.uri = b.uri and f.image_id <> b.image_id
     returning f.image_id
    )
    select array_agg(distinct m.image_id) into abandoned from moved m;

    insert into lookalike.files (image_id, collection, uri, fingerprint)
    select distinct on (b.collection, b.uri) b.image_id, b.collection, b.uri, b.fingerprint
      from pg_temp.lookalike_batch b
     order by b.collection, b.uri
        on conflict (image_id, collection, uri) do update
       set fingerprint = excluded.fingerprint
     where files.fingerprint is distinct from excluded.fingerprint;

    insert into lookalike.embeddings (image_id, model_id, embedding)
    select distinct on (b.image_id) b.image_id, id, b.embedding
      from pg_temp.lookalike_batch b
     where b.embedding is not null
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

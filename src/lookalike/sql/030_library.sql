-- What analysts look at first: one row per image, without vectors.

create or replace view lookalike.library as
select i.image_id,
       array_agg(f.uri order by f.uri) as uris,
       array_agg(f.key order by f.uri) filter (where f.key is not null) as keys,
       array_agg(distinct f.collection) as collections,
       (array_agg(f.metadata order by f.uri))[1] as metadata,
       (select array_agg(m.name order by m.name)
          from lookalike.embeddings e
          join lookalike.models m using (model_id)
         where e.image_id = i.image_id) as models,
       i.media_type,
       i.width,
       i.height,
       i.byte_size,
       i.created_at
  from lookalike.images i
  left join lookalike.files f using (image_id)
 group by i.image_id;

comment on view lookalike.library is
    'One row per image: where it lies, its keys and metadata, and the models that it is embedded under.';

-- What analysts may search with: lookalike.search_text takes these, under these models.

create or replace view lookalike.known_texts as
select q.source as text, m.name as model, q.created_at
  from lookalike.queries q
  join lookalike.models m using (model_id)
 where q.kind = 'text' and m.state <> 'dropped';

comment on view lookalike.known_texts is
    'The texts that were embedded already (lookalike query add "…"), so that SQL can search with them.';

-- How far each model has come, so that every picture is accounted for. Sum `files` or `images` over the states of a
-- model and collection, and nothing is missing or counted twice. A file that was embedded once and cannot be read now
-- has failed, and its image is embedded nevertheless.

create or replace view lookalike.coverage as
with places as (
    select m.name as model, f.collection, f.uri, f.image_id, e.image_id is not null as embedded, x.code
      from lookalike.models m
     cross join lookalike.files f
      left join lookalike.embeddings e on e.image_id = f.image_id and e.model_id = m.model_id
      left join lookalike.failures x on x.model = m.name and x.collection = f.collection and x.uri = f.uri
     where m.state <> 'dropped'
     union all
    -- what could not be read, or is no picture, has no image
    select x.model, x.collection, x.uri, null, false, x.code
      from lookalike.failures x
     where not exists (select from lookalike.files f where f.collection = x.collection and f.uri = x.uri)
), files as (
    select model, collection,
           case when code = 'unsupported' then code
                when code is not null then 'failed'
                when embedded then 'embedded'
                else 'pending' end as state,
           code, count(*) as number
      from places
     group by 1, 2, 3, 4
), images as (
    select model, collection, state, code, count(*) as number
      from (select distinct on (model, collection, image_id)
                   model, collection,
                   case when embedded then 'embedded'
                        when code is null then 'pending'
                        when code = 'unsupported' then code
                        else 'failed' end as state,
                   case when not embedded then code end as code
              from places
             where image_id is not null
             -- an image whose files fare differently counts once, where it fares best
             order by model, collection, image_id, embedded desc, code is not null, code = 'unsupported', uri) best
     group by 1, 2, 3, 4
)
select coalesce(f.model, i.model) as model,
       coalesce(f.collection, i.collection) as collection,
       coalesce(f.state, i.state) as state,
       coalesce(f.code, i.code) as code,
       coalesce(i.number, 0) as images,
       coalesce(f.number, 0) as files
  from files f
  full join images i on (f.model, f.collection, f.state, coalesce(f.code, ''))
                      = (i.model, i.collection, i.state, coalesce(i.code, ''));

comment on view lookalike.coverage is
    'Per model and collection: images and files that are embedded, pending, failed (by code) or unsupported.';

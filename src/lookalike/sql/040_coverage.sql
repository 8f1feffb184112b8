-- How far each model has come, so that every picture is accounted for. Sum `files` or `images` over the states of a
-- model and collection, and nothing is missing or counted twice.

create or replace view lookalike.coverage as
with places as (
    select m.name as model, f.collection, f.uri, f.image_id,
           case when e.image_id is not null then 'embedded'
                when x.code = 'unsupported' then 'unsupported'
                when x.code is not null then 'failed'
                else 'pending' end as state,
           x.code
      from lookalike.models m
     cross join lookalike.files f
      left join lookalike.embeddings e on e.image_id = f.image_id and e.model_id = m.model_id
      left join lookalike.failures x on x.model = m.name and x.collection = f.collection and x.uri = f.uri
     where m.state <> 'dropped'
     union all
    -- what could not be read, or is no picture, has no image
    select x.model, x.collection, x.uri, null,
           case when x.code = 'unsupported' then 'unsupported' else 'failed' end, x.code
      from lookalike.failures x
     where not exists (select from lookalike.files f where f.collection = x.collection and f.uri = x.uri)
), counted as (
    select model, collection, state,
           case when state in ('failed', 'unsupported') then code end as code,
           -- an image whose files fare differently counts once, where it fares best
           image_id is not null and row_number() over (
               partition by model, collection, image_id
                   order by array_position(array['embedded', 'pending', 'failed', 'unsupported'], state), uri
           ) = 1 as counts_as_image
      from places
)
select model, collection, state, code,
       count(*) filter (where counts_as_image) as images,
       count(*) as files
  from counted
 group by model, collection, state, code;

comment on view lookalike.coverage is
    'Per model and collection: images and files that are embedded, pending, failed (by code) or unsupported.';

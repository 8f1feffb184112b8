-- Ten questions to a library of pictures, in plain SQL, for whoever may read it (lookalike db grant --reader ROLE):
--
--     psql "$(lookalike db url)" -f scripts/analyst_queries.sql
--
-- They use metadata called artist, year and price, and do no harm where there is none. "This picture" is the first one;
-- put another id in its place. Questions that compare each picture with all others ask for a sample of 1,000: ids are
-- hashes, so the first thousand are as good as any.

-- 1. What looks most like this picture?
select uri, round(similarity::numeric, 3) as similarity
  from lookalike.similar_images((select image_id from lookalike.active_embeddings order by image_id limit 1), 10);

-- 2. From which years are the pictures that fit a text best? The text must have been embedded once:
--    lookalike query add "a blue house"
select s.metadata ->> 'year' as year, count(*) as pictures, round(max(s.similarity)::numeric, 3) as best
  from lookalike.models m
 cross join lateral lookalike.search_vector(
           -- null, and so no rows, where the text is not known
           lookalike.known_query(m.name, 'text', sha256(convert_to('a blue house', 'UTF8'))), m.name, 50) s
 where m.state = 'active'
 group by 1
 order by pictures desc, best desc, year
 limit 10;

-- 3. Of which artists are there near copies: other pictures that are almost the same?
select f.metadata ->> 'artist' as artist,
       count(distinct n.query_id) as pictures_with_copies,
       round(max(n.similarity)::numeric, 3) as closest
  from lookalike.similar_many(
           array(select image_id from lookalike.active_embeddings order by image_id limit 1000), 5) n
  join lookalike.files f on f.image_id = n.query_id
 where n.similarity >= 0.98
 group by 1
 order by pictures_with_copies desc, artist;

-- 4. How many pictures came in each month, and how many of them can be searched?
select to_char(date_trunc('month', l.created_at), 'YYYY-MM') as month,
       m.name as model,
       count(*) as pictures,
       count(*) filter (where m.name = any (l.models)) as embedded,
       round(100.0 * count(*) filter (where m.name = any (l.models)) / count(*), 1) as percent
  from lookalike.library l
 cross join lookalike.models m
 where m.state <> 'dropped'
 group by 1, 2
 order by 1, 2;

-- 5. Which pictures are farthest from the centre of their folder, and so perhaps in the wrong one?
with placed as (
    select regexp_replace(f.uri, '[^/]*$', '') as folder, f.uri, e.embedding
      from lookalike.files f
      join lookalike.active_embeddings e using (image_id)
), centres as (
    select folder, avg(embedding) as centre, count(*) as pictures
      from placed
     group by folder
)
select p.uri, c.pictures as in_folder, round((1 - (p.embedding <=> c.centre))::numeric, 3) as similarity_to_centre
  from placed p
  join centres c using (folder)
 where c.pictures >= 3
 order by p.embedding <=> c.centre desc, p.uri
 limit 10;

-- 6. Which products under 50 look like this one?
with products as (
    select image_id, key as sku,
           -- null where it is no number
           jsonb_path_query_first(metadata, '$.price.double()', silent => true)::numeric as price
      from lookalike.files
)
select p.sku, p.price, round(s.similarity::numeric, 3) as similarity
  from lookalike.similar_images((select image_id from lookalike.active_embeddings order by image_id limit 1), 10,
                                among => array(select image_id from products where price < 50)) s
  join products p using (image_id)
 where p.price < 50
 order by s.similarity desc, p.sku;

-- 7. Which picture is most typical of each collection?
with placed as (
    select f.collection, f.uri, e.embedding
      from lookalike.files f
      join lookalike.active_embeddings e using (image_id)
), centres as (
    select collection, avg(embedding) as centre
      from placed
     group by collection
)
select distinct on (p.collection) p.collection, p.uri, round((1 - (p.embedding <=> c.centre))::numeric, 3) as similarity
  from placed p
  join centres c using (collection)
 order by p.collection, p.embedding <=> c.centre, p.uri;

-- 8. Which pictures have nothing like them?
select f.uri, round(n.similarity::numeric, 3) as nearest_neighbour
  from lookalike.similar_many(
           array(select image_id from lookalike.active_embeddings order by image_id limit 1000), 1) n
 cross join lateral (select uri from lookalike.files where image_id = n.query_id order by uri limit 1) f
 order by n.similarity, f.uri
 limit 10;

-- 9. Which products were photographed more than once, and how alike are their pictures?
select a.key, a.uri as one, b.uri as other,
       round((1 - (x.embedding <=> y.embedding))::numeric, 3) as similarity
  from lookalike.files a
  join lookalike.files b on b.key = a.key and b.image_id > a.image_id
  join lookalike.active_embeddings x on x.image_id = a.image_id
  join lookalike.active_embeddings y on y.image_id = b.image_id
 order by similarity desc, a.key, one, other
 limit 10;

-- 10. How far do collections overlap: how many pictures lie in both?
select a.collection as one, b.collection as other, count(distinct a.image_id) as pictures_in_both
  from lookalike.files a
  join lookalike.files b on b.image_id = a.image_id and b.collection > a.collection
 group by 1, 2
 order by pictures_in_both desc, one, other
 limit 10;

-- A model's own rooms: a partition with its vectors inline, an HNSW index, a view. Made when the model is first used, with
-- the owner's rights, so that whoever may write can also bring in the first pictures of a model.

create or replace function lookalike.add_model(
    name       text,
    provider   text,
    version    text,
    dimensions integer default 1024,
    parameters jsonb default '{}'
) returns integer
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    id         integer;
    room       text;
    view       text;
    first_used boolean;
    given      record;
begin
    select m.model_id into id from lookalike.models m where m.name = add_model.name;
    if found then
        return id;
    end if;

    if add_model.name !~ '^[a-z0-9][a-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(\+[A-Za-z0-9._-]+)*$'
       or lower(split_part(split_part(add_model.name, '/', 2), '+', 1)) = 'latest'
       or octet_length(add_model.name) > 200 or add_model.name is null then
        raise exception '% is not the name of a model', coalesce(quote_literal(add_model.name), 'null')
            using errcode = 'invalid_parameter_value',
                  hint = 'Names read provider/version, for example azure-vision/2023-04-15, and never latest.';
    elsif add_model.dimensions is null or add_model.dimensions not between 1 and 1024 then
        raise exception 'a model has 1 to 1024 dimensions, not %', coalesce(add_model.dimensions::text, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Vectors are stored as halfvec(1024).';
    elsif jsonb_typeof(add_model.parameters) is distinct from 'object' then
        raise exception 'the parameters of a model are a JSON object'
            using errcode = 'invalid_parameter_value', hint = 'For example: parameters => ''{"dimensions": 512}''';
    end if;

    -- one at a time, over all processes
    perform pg_advisory_xact_lock(hashtextextended('lookalike.add_model', 0));
    select m.model_id into id from lookalike.models m where m.name = add_model.name;
    if found then
        return id;
    end if;

    first_used := not exists (select from lookalike.models m where m.state = 'active');
    view := left(regexp_replace(lower(add_model.name), '[^a-z0-9]+', '_', 'g'), 50);
    insert into lookalike.models (name, provider, version, dimensions, parameters, view_name, state)
    values (add_model.name, add_model.provider, add_model.version, add_model.dimensions, add_model.parameters,
            -- another model or table may have that name already
            case when to_regclass('lookalike.' || quote_ident(view)) is null then view
                 else view || '_' || substr(md5(add_model.name), 1, 8) end,
            case when first_used then 'active' else 'filling' end)
    returning models.model_id, models.view_name into id, view;

    -- attached rather than made as a partition: that would wait for everybody who reads another model
    room := format('lookalike.embeddings_%s', id);
    execute format('create table %s (like lookalike.embeddings including defaults including constraints)'
                   ' with (toast_tuple_target = 8160)', room);
    execute format('create index embeddings_%s_hnsw on %s using hnsw (embedding @extschema:vector@.halfvec_cosine_ops)'
                   ' with (m = 16, ef_construction = 64)', id, room);
    execute format('alter table lookalike.embeddings attach partition %s for values in (%s)', room, id);
    execute format('create view lookalike.%I as select image_id, embedding from %s', view, room);
    execute format('comment on view lookalike.%I is %L', view, 'The embeddings of ' || add_model.name || '.');

    -- whoever may read the active model's vectors may read these, whoever may write into all may write into these
    for given in
        select format('grant %s on lookalike.%I to %s', a.privilege_type,
                      case c.relname when 'embeddings' then 'embeddings_' || id else view end,
                      case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end) as statement
          from pg_class c, aclexplode(c.relacl) a
         where (c.oid = 'lookalike.active_embeddings'::regclass and a.privilege_type = 'SELECT'
                or c.oid = 'lookalike.embeddings'::regclass
                   and a.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
           and a.grantee <> c.relowner
    loop
        execute given.statement;
    end loop;

    if first_used then
        execute format('create or replace view lookalike.active_embeddings as'
                       ' select image_id, %L::text as model, embedding from %s', add_model.name, room);
    end if;
    return id;
end
$$;

comment on function lookalike.add_model is
    'The id of a model; makes its partition, HNSW index and view when it is first used. The first model becomes active.';

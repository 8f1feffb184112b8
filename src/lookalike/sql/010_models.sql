-- A model's own rooms: a partition with its vectors inline, an HNSW index, a view. Made when the model is first used.

create or replace function lookalike.add_model(
    name       text,
    provider   text,
    version    text,
    dimensions integer default 1024,
    parameters jsonb default '{}'
) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    id         integer;
    room       text;
    view       text;
    first_used boolean;
begin
    select m.model_id into id from lookalike.models m where m.name = add_model.name;
    if found then
        return id;
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
    if first_used then
        execute format('create or replace view lookalike.active_embeddings as'
                       ' select image_id, %L::text as model, embedding from %s', add_model.name, room);
    end if;
    return id;
end
$$;

comment on function lookalike.add_model is
    'The id of a model; makes its partition, HNSW index and view when it is first used. The first model becomes active.';

with recursive known (name) as (
    select min(definition) from saga indexed by saga_ended where open = 0
    union all
    select (
        select definition from saga indexed by saga_ended
        where open = 0 and definition > known.name order by definition limit 1
    )
    from known
    where known.name is not null
)
select name from known where name is not null

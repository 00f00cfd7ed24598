-- Every product's stock beside its ledgers' sums.
select
    p.id, p.inventory, p.taken, p.stocked,
    (select coalesce(sum(delta), 0)::bigint from stock_adjustment where product_id = p.id),
    coalesce(m.taken, 0)::bigint
from product as p
left join (
    select product_id, sum(case kind when 'take' then quantity else -quantity end) as taken
    from stock_movement
    group by product_id
) as m on m.product_id = p.id
order by p.id

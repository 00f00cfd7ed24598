update product
set category_id = coalesce($2::bigint, category_id), name = coalesce($3::text, name),
    brand_name = coalesce($4::text, brand_name), description = coalesce($5::text, description),
    price = coalesce($6::bigint, price), inventory = inventory + $7::bigint, stocked = stocked + $7::bigint,
    version = version + 1, updated_at = $8::bigint
where id = $1::bigint
returning id, category_id, name, brand_name, description, price, currency_code, inventory, version

-- A purchase as one local transaction in one database: what the sagas are compared with. For pgbench.
\set product random(1, 100)
\set customer random(1, 32)
begin;
update product set inventory = inventory - 1, version = version + 1 where id = :product and inventory >= 1;
with placed as (
    insert into purchase (customer_id, status, amount, input) values (:customer, 'COMPLETED', 1000, '{"items": [{"product_id": 1, "quantity": 1, "unit_price": 1000}], "currency_code": "VND"}') returning id
), moved as (
    insert into movement (purchase_id, product_id, quantity) select id, :product, 1 from placed
), ordered as (
    insert into order_ (id, customer_id, status, amount) select id, :customer, 'CONFIRMED', 1000 from placed
), lined as (
    insert into order_line (order_id, product_id, quantity, unit_price) select id, :product, 1, 1000 from placed
)
insert into payment (id, customer_id, status, amount) select id, :customer, 'CAPTURED', 1000 from placed;
commit;

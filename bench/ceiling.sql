-- A purchase as one local transaction in one database, statement by statement as a program would: what the sagas are
-- compared with. For pgbench.
\set product random(1, 100)
\set customer random(1, 32)
begin;
select inventory, version from product where id = :product for update;
update product set inventory = inventory - 1, version = version + 1 where id = :product and inventory >= 1;
insert into purchase (customer_id, status, amount, input) values (:customer, 'COMPLETED', 1000, '{"items": [{"product_id": 1, "quantity": 1, "unit_price": 1000}], "currency_code": "VND"}') returning id as purchase \gset
insert into movement (purchase_id, product_id, quantity) values (:purchase, :product, 1);
insert into order_ (id, customer_id, status, amount) values (:purchase, :customer, 'CONFIRMED', 1000);
insert into order_line (order_id, product_id, quantity, unit_price) values (:purchase, :product, 1, 1000);
insert into payment (id, customer_id, status, amount) values (:purchase, :customer, 'CAPTURED', 1000);
commit;

-- The tables of ceiling.sql: every row that a purchase of the shop leaves behind, without the sagas'.
create table product (id bigint primary key, inventory bigint not null check (inventory >= 0), version bigint not null);
create table purchase (id bigint generated always as identity primary key, customer_id bigint not null, status text not null, amount bigint not null, input text not null);
create index purchase_customer on purchase (customer_id, id);
create table movement (purchase_id bigint not null, product_id bigint not null, quantity bigint not null, primary key (purchase_id, product_id));
create table order_ (id bigint primary key, customer_id bigint not null, status text not null, amount bigint not null);
create index order_customer on order_ (customer_id, id);
create table order_line (order_id bigint not null, product_id bigint not null, quantity bigint not null, unit_price bigint not null, primary key (order_id, product_id));
create table payment (id bigint primary key, customer_id bigint not null, status text not null, amount bigint not null);
create index payment_customer on payment (customer_id, id);
insert into product select id, 1000000000, 1 from generate_series(1, 100) as id;

-- The shop's tables on PostgreSQL. The SQLite file beside this one says the same.
create table users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null unique,
    phone text,
    updated_at timestamptz not null
);

-- Only the SHA-256 of a token is kept: who reads the table cannot use it.
create table tokens (
    hash text primary key,
    user_id bigint not null references users (id) on delete cascade
);

create table services (
    id bigint generated always as identity primary key,
    name text not null unique,
    description text not null,
    price_cents bigint not null check (price_cents >= 0),
    duration_minutes bigint not null check (duration_minutes > 0),
    created_at timestamptz not null
);

create table benefits (
    id bigint generated always as identity primary key,
    title text not null unique,
    description text not null,
    percent_off bigint not null check (percent_off between 1 and 100),
    created_at timestamptz not null
);

create table orders (
    id bigint generated always as identity primary key,
    user_id bigint not null references users (id),
    status text not null check (status in ('open', 'paid', 'cancelled')),
    note text,
    total_cents bigint not null check (total_cents >= 0),
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index orders_by_user on orders (user_id, id);

-- The price is the one of the day of the order.
create table order_items (
    order_id bigint not null references orders (id) on delete cascade,
    service_id bigint not null references services (id),
    quantity bigint not null check (quantity > 0),
    unit_price_cents bigint not null check (unit_price_cents >= 0),
    primary key (order_id, service_id)
);

-- The unique constraint is what sells a slot once; no code could promise it.
create table bookings (
    id bigint generated always as identity primary key,
    user_id bigint not null references users (id),
    service_id bigint not null references services (id),
    slot timestamptz not null,
    created_at timestamptz not null,
    constraint bookings_slot unique (service_id, slot)
);
create index bookings_by_user on bookings (user_id, id);

//! The store on PostgreSQL.

use async_trait::async_trait;
use chassis::auth::Role;
use saga_adapters::postgres::{Columns as _, Pg, PgError, Query, Row, Schema};
use saga_core::Millis;
use saga_runtime::StoreError;

use super::{NewSession, Refreshed, SigningKey, Store};
use crate::domain::{Credentials, Delivery, NewAccount, PasswordHash, Personal, Refresh, RefreshRow, judge_refresh};

/// The service's database.
pub const PG_SCHEMA: Schema = Schema {
    name: "account",
    migrations: &[
        ("V1__init", include_str!("../../migrations/postgres/V1__init.sql")),
        ("V2__viewer", include_str!("../../migrations/postgres/V2__viewer.sql")),
    ],
};

const IS_EMPTY: &str = "select not exists (select from account)";
// One of them at a time, in all processes: who is first, and which key is.
const ONE_BY_ONE: &str = "select pg_advisory_xact_lock(0, 1)::text";
const CREATE: &str = "insert into account (customer_id, email, salt, hash, memory_kib, passes, first_name, last_name,
    address, phone_number, role, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    on conflict (email) do nothing returning role";
// The family's row is locked, so that a reuse and a rotation see each other.
const REFRESH: &str = "select s.id, s.customer_id, a.role, t.spent_at, s.expires_at, s.revoked_at is not null
    from refresh_token t join session s on s.id = t.session_id join account a on a.customer_id = s.customer_id
    where t.hash = $1 for no key update of t, s";
const STORE_TOKEN: &str = "insert into refresh_token (hash, session_id, issued_at) values ($1, $2, $3)";
const REVOKE: &str = "update session set revoked_at = $3 where id = $1 and customer_id = $2 and revoked_at is null
    returning id";
const ADD_KEY: &str = "insert into signing_key (kid, pkcs8, created_at)
    select $1::text, $2::bytea, $3::bigint
    where not ($4::boolean and exists (select from signing_key where retired_at is null))";

/// The store, over the database of [`PG_SCHEMA`].
#[derive(Clone, Debug)]
pub struct PgStore {
    pg: Pg,
}

impl PgStore {
    /// Over a database connected with [`PG_SCHEMA`].
    pub fn new(pg: Pg) -> Self {
        Self { pg }
    }

    /// The first row, if there is one.
    async fn find<T>(&self, query: Query<'_>, of: fn(&Row) -> Result<T, PgError>) -> Result<Option<T>, StoreError> {
        Ok(self.pg.read(query).await?.first().map(of).transpose()?)
    }
}

#[async_trait]
impl Store for PgStore {
    async fn create(&self, account: NewAccount, first_is_admin: bool, now: Millis) -> Result<Option<Role>, StoreError> {
        Ok(create(&self.pg, account, first_is_admin, now).await?)
    }

    async fn credentials(&self, email: String) -> Result<Option<Credentials>, StoreError> {
        let sql = "select customer_id, role, salt, hash, memory_kib, passes from account where email = $1";
        let credentials = |row: &Row| {
            let (memory_kib, passes) = (row.small(4)?, row.small(5)?);
            let password = PasswordHash { salt: row.bytes(2)?, hash: row.bytes(3)?, memory_kib, passes };
            Ok(Credentials { customer_id: row.big(0)?, role: role(row.col(1)?)?, password })
        };
        self.find(Query::new(sql).bind(email), credentials).await
    }

    async fn open_session(&self, session: NewSession) -> Result<(), StoreError> {
        let NewSession { id, customer_id, token, now, expires_at } = session;
        let sql = "insert into session (id, customer_id, created_at, expires_at) values ($1, $2, $3, $4)";
        let open = Query::new(sql).big(id).big(customer_id).big(now).big(expires_at);
        self.pg.all(vec![open, store_token(&token, id, now)]).await?;
        Ok(())
    }

    async fn refresh(
        &self,
        token: [u8; 32],
        next: [u8; 32],
        now: Millis,
        grace: Millis,
    ) -> Result<Refreshed, StoreError> {
        Ok(refresh(&self.pg, &token, &next, now, grace).await?)
    }

    async fn revoke_session(&self, session: u64, customer_id: u64, now: Millis) -> Result<bool, StoreError> {
        Ok(!self.pg.run(revoke(session, customer_id, now)).await?.is_empty())
    }

    async fn personal(&self, customer_id: u64) -> Result<Option<Personal>, StoreError> {
        let sql = "select first_name, last_name, email from account where customer_id = $1";
        let view = |row: &Row| Ok(Personal { first_name: row.col(0)?, last_name: row.col(1)?, email: row.col(2)? });
        self.find(Query::new(sql).big(customer_id), view).await
    }

    async fn set_personal(&self, customer_id: u64, personal: Personal) -> Result<bool, StoreError> {
        let sql = "update account set first_name = $2, last_name = $3, email = $4 where customer_id = $1
            returning customer_id";
        let Personal { first_name, last_name, email } = personal;
        let query = Query::new(sql).big(customer_id).bind(first_name).bind(last_name).bind(email);
        match self.pg.run(query).await {
            Err(error) if error.violates("account_of_email") => Ok(false),
            result => Ok(!result?.is_empty()),
        }
    }

    async fn delivery(&self, customer_id: u64) -> Result<Option<Delivery>, StoreError> {
        let sql = "select address, phone_number from account where customer_id = $1";
        let view = |row: &Row| Ok(Delivery { address: row.col(0)?, phone_number: row.col(1)? });
        self.find(Query::new(sql).big(customer_id), view).await
    }

    async fn set_delivery(&self, customer_id: u64, delivery: Delivery) -> Result<(), StoreError> {
        let sql = "update account set address = $2, phone_number = $3 where customer_id = $1";
        let Delivery { address, phone_number } = delivery;
        self.pg.run(Query::new(sql).big(customer_id).bind(address).bind(phone_number)).await?;
        Ok(())
    }

    async fn set_role(&self, email: String, role: Role) -> Result<bool, StoreError> {
        let sql = "update account set role = $2 where email = $1 returning role";
        Ok(!self.pg.run(Query::new(sql).bind(email).bind(role.as_str())).await?.is_empty())
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.find(Query::new(IS_EMPTY), |row| row.col(0)).await?.unwrap_or_default())
    }

    async fn keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let sql = "select kid, pkcs8 from signing_key where retired_at is null order by created_at desc, kid";
        let key = |row: &Row| Ok(SigningKey { kid: row.col(0)?, pkcs8: row.col(1)? });
        let keys: Result<_, PgError> = self.pg.read(Query::new(sql)).await?.iter().map(key).collect();
        Ok(keys?)
    }

    async fn add_key(&self, key: SigningKey, only_first: bool, now: Millis) -> Result<(), StoreError> {
        let add = Query::new(ADD_KEY).bind(key.kid).bind(key.pkcs8).big(now).bind(only_first);
        self.pg.all(vec![Query::new(ONE_BY_ONE), add]).await?;
        Ok(())
    }
}

async fn create(pg: &Pg, account: NewAccount, first_is_admin: bool, now: Millis) -> Result<Option<Role>, PgError> {
    let may_be_first = account.role.is_none() && first_is_admin;
    if !may_be_first || !flag(&pg.read(Query::new(IS_EMPTY)).await?)? {
        let role = account.role.unwrap_or(Role::Customer);
        let created = pg.run(insert(account, role, now)).await?;
        return Ok((!created.is_empty()).then_some(role));
    }
    // It looks like the first: asked again where there is only one at a time.
    let (tx, rows) = pg.begin(vec![Query::new(ONE_BY_ONE), Query::new(IS_EMPTY)]).await?;
    let role = if flag(rows.last().map_or(&[], Vec::as_slice))? { Role::Admin } else { Role::Customer };
    let created = tx.commit(vec![insert(account, role, now)]).await?;
    Ok(created.iter().flatten().next().map(|_| role))
}

fn flag(rows: &[Row]) -> Result<bool, PgError> {
    rows.first().ok_or_else(|| PgError::fault("a question without an answer"))?.col(0)
}

fn insert(account: NewAccount, role: Role, now: Millis) -> Query<'static> {
    let NewAccount { customer_id, personal, delivery, password, .. } = account;
    let cost = |number| i32::try_from(number).unwrap_or(i32::MAX);
    Query::new(CREATE)
        .big(customer_id)
        .bind(personal.email)
        .bind(password.salt.to_vec())
        .bind(password.hash.to_vec())
        .bind(cost(password.memory_kib))
        .bind(cost(password.passes))
        .bind(personal.first_name)
        .bind(personal.last_name)
        .bind(delivery.address)
        .bind(delivery.phone_number)
        .bind(role.as_str())
        .big(now)
}

async fn refresh(pg: &Pg, token: &[u8; 32], next: &[u8; 32], now: Millis, grace: Millis) -> Result<Refreshed, PgError> {
    let (tx, rows) = pg.begin(vec![Query::new(REFRESH).bind(token.to_vec())]).await?;
    let Some(found) = rows.iter().flatten().next() else {
        tx.roll_back().await;
        return Ok(Refreshed::Unknown);
    };
    let row = RefreshRow {
        session: found.big(0)?,
        customer_id: found.big(1)?,
        role: role(found.col(2)?)?,
        spent_at: found.opt_big(3)?,
        session_expires_at: found.big(4)?,
        revoked: found.col(5)?,
    };
    let judged = judge_refresh(&row, now, grace);
    match judged {
        Refresh::Rotate => {
            let spend = Query::new("update refresh_token set spent_at = $2 where hash = $1").bind(token.to_vec());
            tx.commit(vec![spend.big(now), store_token(next, row.session, now)]).await?;
            Ok(Refreshed::Rotated { customer_id: row.customer_id, role: row.role, session: row.session })
        }
        Refresh::RevokeFamily => {
            tx.commit(vec![revoke(row.session, row.customer_id, now)]).await?;
            Ok(Refreshed::Refused(judged))
        }
        Refresh::Refuse => {
            tx.roll_back().await;
            Ok(Refreshed::Refused(judged))
        }
    }
}

fn store_token(token: &[u8; 32], session: u64, now: Millis) -> Query<'static> {
    Query::new(STORE_TOKEN).bind(token.to_vec()).big(session).big(now)
}

fn revoke(session: u64, customer_id: u64, now: Millis) -> Query<'static> {
    Query::new(REVOKE).big(session).big(customer_id).big(now)
}

fn role(text: &str) -> Result<Role, PgError> {
    Role::from_text(text).ok_or_else(|| PgError::fault(format!("an account cannot have the role {text}")))
}

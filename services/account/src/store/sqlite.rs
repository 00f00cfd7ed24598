//! The store on SQLite.

use async_trait::async_trait;
use chassis::auth::Role;
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _, Row};
use saga_adapters::sqlite::{Db, Durability, Schema, SqlError};
use saga_core::Millis;
use saga_runtime::StoreError;

use super::{NewSession, Refreshed, SigningKey, Store};
use crate::domain::{Credentials, Delivery, NewAccount, PasswordHash, Personal, Refresh, RefreshRow, judge_refresh};

/// The service's file.
pub const SCHEMA: Schema = Schema {
    name: "account",
    migrations: &[
        ("V1__init", include_str!("../../migrations/V1__init.sql")),
        ("V2__viewer", include_str!("../../migrations/V2__viewer.sql")),
    ],
};

const CREATE: &str = "insert into account (customer_id, email, salt, hash, memory_kib, passes, first_name, last_name,
    address, phone_number, role, created_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    on conflict (email) do nothing";
const REFRESH: &str = "select s.id, s.customer_id, a.role, t.spent_at, s.expires_at, s.revoked_at is not null
    from refresh_token t join session s on s.id = t.session_id join account a on a.customer_id = s.customer_id
    where t.hash = ?1";

/// The store, over the file of [`SCHEMA`].
#[derive(Clone, Debug)]
pub struct SqliteStore {
    db: Db,
}

impl SqliteStore {
    /// Over a file opened with [`SCHEMA`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<R, SqlError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.db.write(Durability::Durable, work).await
    }
}

fn role(text: &str) -> Result<Role, SqlError> {
    Role::from_text(text).ok_or_else(|| SqlError::fault(format!("an account cannot have the role {text}")))
}

fn bytes<const N: usize>(row: &Row<'_>, at: usize) -> Result<[u8; N], SqlError> {
    let blob = row.get_ref(at)?.as_blob().map_err(SqlError::fault)?;
    blob.try_into().map_err(|_| SqlError::fault("a hash of the wrong length"))
}

fn create(
    conn: &Connection,
    account: &NewAccount,
    first_is_admin: bool,
    now: Millis,
) -> Result<Option<Role>, SqlError> {
    let role = match account.role {
        Some(role) => role,
        None if first_is_admin && is_empty(conn)? => Role::Admin,
        None => Role::Customer,
    };
    let NewAccount { customer_id, personal, delivery, password, .. } = account;
    let created = conn.prepare_cached(CREATE)?.execute((
        customer_id,
        &personal.email,
        &password.salt,
        &password.hash,
        password.memory_kib,
        password.passes,
        &personal.first_name,
        &personal.last_name,
        &delivery.address,
        &delivery.phone_number,
        role.as_str(),
        now,
    ))?;
    Ok((created == 1).then_some(role))
}

fn is_empty(conn: &Connection) -> Result<bool, SqlError> {
    Ok(conn.prepare_cached("select not exists (select 1 from account)")?.query_row([], |row| row.get(0))?)
}

fn refresh(
    conn: &Connection,
    token: &[u8; 32],
    next: &[u8; 32],
    now: Millis,
    grace: Millis,
) -> Result<Refreshed, SqlError> {
    let mut find = conn.prepare_cached(REFRESH)?;
    let mut rows = find.query([token])?;
    let Some(found) = rows.next()? else { return Ok(Refreshed::Unknown) };
    let row = RefreshRow {
        session: found.get(0)?,
        customer_id: found.get(1)?,
        role: role(&found.get::<_, String>(2)?)?,
        spent_at: found.get(3)?,
        session_expires_at: found.get(4)?,
        revoked: found.get(5)?,
    };
    drop(rows);
    match judge_refresh(&row, now, grace) {
        Refresh::Rotate => {
            conn.prepare_cached("update refresh_token set spent_at = ?2 where hash = ?1")?.execute((token, now))?;
            store_token(conn, next, row.session, now)?;
            Ok(Refreshed::Rotated { customer_id: row.customer_id, role: row.role, session: row.session })
        }
        Refresh::RevokeFamily => {
            revoke(conn, row.session, row.customer_id, now)?;
            Ok(Refreshed::Refused(Refresh::RevokeFamily))
        }
        Refresh::Refuse => Ok(Refreshed::Refused(Refresh::Refuse)),
    }
}

fn store_token(conn: &Connection, token: &[u8; 32], session: u64, now: Millis) -> Result<(), SqlError> {
    let sql = "insert into refresh_token (hash, session_id, issued_at) values (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute((token, session, now))?;
    Ok(())
}

fn revoke(conn: &Connection, session: u64, customer_id: u64, now: Millis) -> Result<bool, SqlError> {
    let sql = "update session set revoked_at = ?3 where id = ?1 and customer_id = ?2 and revoked_at is null";
    Ok(conn.prepare_cached(sql)?.execute((session, customer_id, now))? == 1)
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, account: NewAccount, first_is_admin: bool, now: Millis) -> Result<Option<Role>, StoreError> {
        self.write(move |conn| create(conn, &account, first_is_admin, now)).await
    }

    async fn credentials(&self, email: String) -> Result<Option<Credentials>, StoreError> {
        let sql = "select customer_id, role, salt, hash, memory_kib, passes from account where email = ?1";
        self.db
            .read(move |conn| {
                let mut find = conn.prepare_cached(sql)?;
                let mut rows = find.query([email])?;
                let Some(row) = rows.next()? else { return Ok(None) };
                let password = PasswordHash {
                    salt: bytes(row, 2)?,
                    hash: bytes(row, 3)?,
                    memory_kib: row.get(4)?,
                    passes: row.get(5)?,
                };
                let role = role(&row.get::<_, String>(1)?)?;
                Ok(Some(Credentials { customer_id: row.get(0)?, role, password }))
            })
            .await
    }

    async fn open_session(&self, session: NewSession) -> Result<(), StoreError> {
        let NewSession { id, customer_id, token, now, expires_at } = session;
        let sql = "insert into session (id, customer_id, created_at, expires_at) values (?1, ?2, ?3, ?4)";
        self.write(move |conn| {
            conn.prepare_cached(sql)?.execute((id, customer_id, now, expires_at))?;
            store_token(conn, &token, id, now)
        })
        .await
    }

    async fn refresh(
        &self,
        token: [u8; 32],
        next: [u8; 32],
        now: Millis,
        grace: Millis,
    ) -> Result<Refreshed, StoreError> {
        self.write(move |conn| refresh(conn, &token, &next, now, grace)).await
    }

    async fn revoke_session(&self, session: u64, customer_id: u64, now: Millis) -> Result<bool, StoreError> {
        self.write(move |conn| revoke(conn, session, customer_id, now)).await
    }

    async fn personal(&self, customer_id: u64) -> Result<Option<Personal>, StoreError> {
        let sql = "select first_name, last_name, email from account where customer_id = ?1";
        let view = |row: &Row<'_>| Ok(Personal { first_name: row.get(0)?, last_name: row.get(1)?, email: row.get(2)? });
        self.db.read(move |conn| Ok(conn.prepare_cached(sql)?.query_row([customer_id], view).optional()?)).await
    }

    async fn set_personal(&self, customer_id: u64, personal: Personal) -> Result<bool, StoreError> {
        let sql = "update or ignore account set first_name = ?2, last_name = ?3, email = ?4 where customer_id = ?1";
        self.write(move |conn| {
            let Personal { first_name, last_name, email } = &personal;
            Ok(conn.prepare_cached(sql)?.execute((customer_id, first_name, last_name, email))? == 1)
        })
        .await
    }

    async fn delivery(&self, customer_id: u64) -> Result<Option<Delivery>, StoreError> {
        let sql = "select address, phone_number from account where customer_id = ?1";
        let view = |row: &Row<'_>| Ok(Delivery { address: row.get(0)?, phone_number: row.get(1)? });
        self.db.read(move |conn| Ok(conn.prepare_cached(sql)?.query_row([customer_id], view).optional()?)).await
    }

    async fn set_delivery(&self, customer_id: u64, delivery: Delivery) -> Result<(), StoreError> {
        let sql = "update account set address = ?2, phone_number = ?3 where customer_id = ?1";
        self.write(move |conn| {
            conn.prepare_cached(sql)?.execute((customer_id, &delivery.address, &delivery.phone_number))?;
            Ok(())
        })
        .await
    }

    async fn set_role(&self, email: String, role: Role) -> Result<bool, StoreError> {
        let sql = "update account set role = ?2 where email = ?1";
        self.write(move |conn| Ok(conn.prepare_cached(sql)?.execute((email, role.as_str()))? == 1)).await
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.db.read(is_empty).await
    }

    async fn keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let sql = "select kid, pkcs8 from signing_key where retired_at is null order by created_at desc, kid";
        self.db
            .read(move |conn| {
                let mut find = conn.prepare_cached(sql)?;
                let keys = find.query_map([], |row| Ok(SigningKey { kid: row.get(0)?, pkcs8: row.get(1)? }))?;
                Ok(keys.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn add_key(&self, key: SigningKey, only_first: bool, now: Millis) -> Result<(), StoreError> {
        let sql = "insert into signing_key (kid, pkcs8, created_at)
            select ?1, ?2, ?3 where not (?4 and exists (select 1 from signing_key where retired_at is null))";
        self.write(move |conn| {
            conn.prepare_cached(sql)?.execute((key.kid, key.pkcs8, now, only_first))?;
            Ok(())
        })
        .await
    }
}

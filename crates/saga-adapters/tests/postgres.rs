//! Reaching a database, whose it is, and what its sessions promise.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use saga_adapters::postgres::{ConnectError, ConnectReason, Groups, Options, Pg, Query, Schema};
use saga_runtime::StoreError;
use testkit::conformance::{until, within};
use testkit::postgres::{address, database, name_of, sql};

const ONE: (&str, &str) = ("V1__init", "create table entry (id bigint primary key);");
const TWO: (&str, &str) = ("V2__text", "alter table entry add column text text;");
const V1: Schema = Schema { name: "order", migrations: &[ONE] };
const V2: Schema = Schema { name: "order", migrations: &[ONE, TWO] };

async fn connect(url: &str, schema: &Schema) -> Result<Pg, ConnectError> {
    Pg::connect(&Options::new(url), schema).await
}

async fn open() -> (Pg, String) {
    let url = database();
    (connect(&url, &V1).await.unwrap(), url)
}

async fn refused(options: &Options, schema: &Schema) -> ConnectReason {
    let error = within("a refusal is not waited for", Pg::connect(options, schema)).await.unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    error.reason
}

fn insert(id: i64) -> Query<'static> {
    Query::new("insert into entry (id) values ($1)").bind(id)
}

async fn count(pg: &Pg) -> i64 {
    pg.run(Query::new("select count(*) from entry")).await.unwrap()[0].get(0)
}

fn store_error<T: std::fmt::Debug>(result: Result<T, impl Into<StoreError>>) -> StoreError {
    result.map_err(Into::into).unwrap_err()
}

mod whose_it_is {
    use super::*;

    #[tokio::test]
    async fn a_new_database_is_made_and_opened_again() {
        let (pg, url) = open().await;
        pg.run(insert(1)).await.unwrap();
        assert_eq!(count(&connect(&url, &V1).await.unwrap()).await, 1);
    }

    #[tokio::test]
    async fn an_older_database_is_brought_up_to_date_if_that_is_wanted() {
        let (_, url) = open().await;
        let only_look = Options { migrate: false, ..Options::new(url.as_str()) };
        assert!(matches!(refused(&only_look, &V2).await, ConnectReason::Older { found: 1, known: 2 }));
        let pg = connect(&url, &V2).await.unwrap();
        pg.run(Query::new("select text from entry")).await.unwrap();
        Pg::connect(&only_look, &V2).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_ours_is_refused_and_left_alone() {
        let url = database();
        sql(name_of(&url), "create table bookmarks (url text)");
        let options = Options::new(url.as_str());
        assert!(matches!(refused(&options, &V1).await, ConnectReason::Foreign(table) if table == "bookmarks"));
        let tables = "select string_agg(relname, ',') from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
        assert_eq!(sql(name_of(&url), tables), "bookmarks");

        let (_, url) = open().await;
        let options = Options::new(url.as_str());
        let payment = Schema { name: "payment", ..V1 };
        let reason = refused(&options, &payment).await.to_string();
        assert!(reason.contains("`order`") && reason.contains("`payment`"), "{reason}");
        const EDITED: Schema = Schema { name: "order", migrations: &[("V1__init", "create table entry (id int);")] };
        assert!(matches!(refused(&options, &EDITED).await, ConnectReason::Edited(name) if name == "V1__init"));
        connect(&url, &V2).await.unwrap();
        let reason = refused(&options, &V1).await;
        assert!(matches!(&reason, ConnectReason::Newer { found, known: 1 } if found == "V2__text"), "{reason}");
    }

    #[tokio::test]
    async fn a_migration_that_fails_leaves_the_database_as_it_was() {
        let (pg, url) = open().await;
        const BROKEN: Schema = Schema {
            name: "order",
            migrations: &[ONE, TWO, ("V3__broken", "create table more (id int); insert into nowhere values (1);")],
        };
        let reason = refused(&Options::new(url.as_str()), &BROKEN).await;
        assert!(
            matches!(&reason, ConnectReason::Migration { name: "V3__broken", detail } if detail.contains("nowhere")),
            "{reason}"
        );
        assert!(pg.run(Query::new("select text from entry")).await.is_err(), "V2 was not kept either");
        connect(&url, &V1).await.unwrap();
    }

    #[tokio::test]
    async fn tables_are_analyzed_by_a_small_sample_unless_somebody_chose_another() {
        let (_, url) = open().await;
        let targets = "select string_agg(attname || ' ' || attstattarget, ', ' order by attnum) from pg_attribute
            where attrelid = 'entry'::regclass and attnum > 0";
        assert_eq!(sql(name_of(&url), targets), "id 10");
        sql(name_of(&url), "alter table entry alter id set statistics 500");
        // A database of before is looked after, too.
        sql(name_of(&url), "alter table schema_migrations alter name set statistics -1");
        connect(&url, &V1).await.unwrap();
        connect(&url, &V2).await.unwrap();
        assert_eq!(sql(name_of(&url), targets), "id 500, text 10");
        let left = "select count(*) from pg_attribute a join pg_class c on c.oid = attrelid
            where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0 and attstattarget = -1";
        assert_eq!(sql(name_of(&url), left), "0");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn d13_several_programs_may_open_a_new_database_at_once() {
        let url = database();
        let mut starts = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let url = url.clone();
            starts.spawn(async move { connect(&url, &V2).await.map(drop) });
        }
        for result in starts.join_all().await {
            result.unwrap();
        }
        assert_eq!(sql(name_of(&url), "select count(*) from schema_migrations"), "2");
    }

    #[tokio::test]
    async fn a_migration_waits_for_the_one_that_runs() {
        let url = database();
        // What a migration elsewhere holds.
        let other = connect(&url, &Schema { name: "order", migrations: &[] }).await.unwrap();
        let lock = Query::new("select pg_advisory_xact_lock(1396787009)::text");
        let (tx, _) = other.begin(vec![lock]).await.unwrap();
        let mut starting = tokio::task::JoinSet::new();
        starting.spawn({
            let url = url.clone();
            async move { connect(&url, &V1).await.map(drop) }
        });
        until("it waits", || async {
            let waiting = "select 1 from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
            !other.run(Query::new(waiting)).await.unwrap().is_empty()
        })
        .await;
        assert!(starting.try_join_next().is_none());
        tx.roll_back().await;
        within("then it runs", starting.join_all()).await.remove(0).unwrap();
    }
}

mod reaching_it {
    use super::*;

    #[tokio::test]
    async fn wrong_addresses_are_refused_at_once() {
        for url in
            ["", "nonsense", "mysql://a@b/c", "postgres://", "postgres:///db", "postgres://user@host:notaport/db"]
        {
            let reason = refused(&Options::new(url), &V1).await;
            assert!(matches!(reason, ConnectReason::Address(_)), "{url}: {reason}");
        }
        let tls = refused(&Options::new(format!("{}?sslmode=require", database())), &V1).await;
        assert!(matches!(&tls, ConnectReason::Address(detail) if detail.contains("sslmode")), "{tls}");
    }

    #[tokio::test]
    async fn a_user_or_database_that_is_not_there_is_refused_at_once() {
        let url = database();
        for url in [address("nobody", name_of(&url)), address("test", "no_such_database")] {
            let url = url.replace('@', ":secret@");
            let error = connect(&url, &V1).await.unwrap_err();
            assert!(matches!(error.reason, ConnectReason::Denied(_)), "{error}");
            assert!(error.to_string().contains("does not") && !error.to_string().contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_yet_is_waited_for_up_to_the_limit() {
        let options = Options {
            connect_for: Some(Duration::from_millis(300)),
            ..Options::new("postgres://user:secret@127.0.0.1:1/order")
        };
        #[expect(clippy::disallowed_methods, reason = "a duration is measured")]
        let began = std::time::Instant::now();
        let reason = refused(&options, &V1).await;
        assert!(matches!(reason, ConnectReason::Unreachable(_)), "{reason}");
        assert!(began.elapsed() >= Duration::from_millis(300));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_that_lets_nobody_in_for_a_while_is_waited_for() {
        let url = database();
        let name = name_of(&url).to_owned();
        sql("postgres", &format!("alter database {name} connection limit 0; create role guest login"));
        sql("postgres", &format!("grant all on database {name} to guest; alter database {name} owner to guest"));
        let options = Options { pool_size: 0, ..Options::new(address("guest", &name)) };
        let mut connecting = tokio::task::JoinSet::new();
        connecting.spawn(async move { Pg::connect(&options, &V1).await.map(drop) });
        tokio::task::yield_now().await;
        sql("postgres", &format!("alter database {name} connection limit 10"));
        within("it is let in", connecting.join_all()).await.remove(0).unwrap();
    }

    #[tokio::test]
    async fn a_pool_larger_than_the_server_allows_is_refused() {
        let url = database();
        let options = Options { pool_size: 118, ..Options::new(url.as_str()) };
        let reason = refused(&options, &V1).await;
        assert!(matches!(reason, ConnectReason::PoolTooLarge { wanted: 118, allowed: 117, .. }), "{reason}");
        let name = name_of(&url).to_owned();
        sql("postgres", &format!("create role small login connection limit 3; alter database {name} owner to small"));
        let small = Options::new(address("small", &name));
        let reason = refused(&small, &V1).await;
        assert!(reason.to_string().contains("the role's"), "{reason}");
        Pg::connect(&Options { pool_size: 3, ..small }, &V1).await.unwrap();
        sql("postgres", &format!("alter database {name} connection limit 2"));
        let reason = refused(&Options { pool_size: 3, ..Options::new(url.as_str()) }, &V1).await;
        assert!(reason.to_string().contains("the database's"), "{reason}");
    }

    #[tokio::test]
    async fn sessions_say_who_they_are_and_are_bounded() {
        let url = database();
        let timeout = Duration::from_millis(200);
        let options = Options { statement_timeout: timeout, ..Options::new(url.as_str()) };
        let pg = Pg::connect(&options, &V1).await.unwrap();
        let show = async |name: &str| {
            let query = Query::new("select current_setting($1)").bind(name.to_owned());
            pg.run(query).await.unwrap()[0].get::<_, String>(0)
        };
        assert_eq!(show("application_name").await, "saga-order");
        assert_eq!(show("idle_in_transaction_session_timeout").await, "10s");
        assert_eq!(show("synchronous_commit").await, "on");
        let slow = store_error(pg.run(Query::new("select pg_sleep(60)::text")).await);
        assert!(matches!(&slow, StoreError::Transient(detail) if detail.contains("57014")), "{slow:?}");
        assert_eq!(count(&pg).await, 0);
    }
}

mod sessions {
    use super::*;

    /// The server's own number of the one session that is in use by turns.
    async fn backend(pg: &Pg) -> i32 {
        pg.run(Query::new("select pg_backend_pid()")).await.unwrap()[0].get(0)
    }

    #[tokio::test]
    async fn a_transaction_is_all_or_nothing() {
        let (pg, _) = open().await;
        let rows = pg.all(vec![insert(1), Query::new("select count(*) from entry"), insert(2)]).await.unwrap();
        assert_eq!((rows.len(), rows[1][0].get::<_, i64>(0)), (3, 1));
        let pid = backend(&pg).await;
        let failed = store_error(pg.all(vec![insert(3), insert(1), insert(4)]).await);
        assert!(matches!(&failed, StoreError::Fault(detail) if detail.contains("entry_pkey")), "{failed:?}");
        // Prepared for the first time in the middle of a transaction, and wrong.
        let (tx, _) = pg.begin(vec![insert(5)]).await.unwrap();
        assert!(tx.commit(vec![Query::new("select nonsense")]).await.is_err());
        let (tx, _) = pg.begin(vec![insert(6)]).await.unwrap();
        tx.roll_back().await;
        assert!(pg.begin(vec![insert(7), insert(1)]).await.is_err());
        assert_eq!(count(&pg).await, 2);
        assert_eq!(backend(&pg).await, pid, "none of that costs a session");
        let (tx, _) = pg.begin(vec![insert(8)]).await.unwrap();
        tx.also(vec![insert(9)]).await.unwrap();
        tx.commit(vec![insert(10)]).await.unwrap();
        assert_eq!(count(&pg).await, 5);
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_nothing_open() {
        let (pg, _) = open().await;
        let (tx, _) = pg.begin(vec![insert(1)]).await.unwrap();
        drop(tx);
        // Given up in the middle of a statement.
        let slow = pg.all(vec![insert(2), Query::new("select pg_sleep(60)::text")]);
        assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
        assert_eq!(pg.sessions().0, 0);
        pg.run(insert(1)).await.unwrap();
        until("the server notices", || async {
            let open = "select 1 from pg_stat_activity where datname = current_database() and state like 'idle in%'";
            pg.run(Query::new(open)).await.unwrap().is_empty()
        })
        .await;
        assert_eq!(count(&pg).await, 1);
    }

    #[tokio::test]
    async fn a_session_that_the_server_ends_is_transient_and_replaced() {
        let (pg, url) = open().await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()";
        let pid = backend(&pg).await;
        sql(name_of(&url), kill);
        assert_ne!(pg.read(Query::new("select pg_backend_pid()")).await.unwrap()[0].get::<_, i32>(0), pid);
        let (tx, _) = pg.begin(vec![insert(1)]).await.unwrap();
        sql(name_of(&url), kill);
        let lost = store_error(tx.commit(vec![insert(2)]).await);
        assert!(matches!(lost, StoreError::Transient(_)), "{lost:?}");
        assert_eq!(count(&pg).await, 0);
        assert_eq!(pg.ping().await, Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deadlock_is_transient() {
        let (pg, _) = open().await;
        pg.all(vec![insert(1), insert(2)]).await.unwrap();
        let lock = |id: i64| Query::new("select id from entry where id = $1 for update").bind(id);
        let (one, _) = pg.begin(vec![lock(1)]).await.unwrap();
        let (two, _) = pg.begin(vec![lock(2)]).await.unwrap();
        let (one, two) = tokio::join!(one.commit(vec![lock(2)]), two.commit(vec![lock(1)]));
        let failed = if one.is_err() { one } else { two };
        assert!(matches!(store_error(failed), StoreError::Transient(detail) if detail.contains("40P01")));
    }

    #[tokio::test]
    async fn who_waits_too_long_for_a_session_is_told() {
        let options = Options { pool_size: 1, acquire_timeout: Duration::from_millis(50), ..Options::new(database()) };
        let pg = Pg::connect(&options, &V1).await.unwrap();
        let (tx, _) = pg.begin(vec![]).await.unwrap();
        assert_eq!(pg.sessions(), (1, 1));
        assert!(matches!(pg.ping().await, Err(StoreError::Transient(_))));
        tx.roll_back().await;
        assert_eq!(pg.ping().await, Ok(()));
        pg.clone().close().await;
        assert!(matches!(pg.ping().await, Err(StoreError::Transient(_))));
    }

    #[tokio::test]
    async fn what_cannot_be_is_a_fault() {
        let (pg, _) = open().await;
        let text = Query::new("insert into entry (id) values ($1)").bind("text");
        for query in [Query::new("selec 1"), text, Query::new("select $1::text").bind("\0"), Query::new("select 1 / 0")]
        {
            let error = store_error(pg.run(query).await);
            assert!(matches!(error, StoreError::Fault(_)), "{error:?}");
        }
    }
}

mod groups {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_arrives_meanwhile_is_written_together() {
        let (pg, _) = open().await;
        let batches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&batches);
        let writing = pg.clone();
        let groups = Groups::new(64, Duration::ZERO, move |ids: Vec<i64>| {
            let pg = writing.clone();
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let sql = "insert into entry (id) select unnest($1::bigint[]) returning id";
                let rows = pg.run(Query::new(sql).bind(ids)).await?;
                Ok(rows.iter().map(|row| row.get::<_, i64>(0)).collect())
            }
        });
        let mut requests = tokio::task::JoinSet::new();
        for id in 0..500_i64 {
            let groups = groups.clone();
            requests.spawn(async move { (id, groups.put(id).await) });
        }
        for (id, answer) in requests.join_all().await {
            assert_eq!(answer, Ok(id));
        }
        assert!(batches.load(Ordering::Relaxed) < 250, "{batches:?}");
        // One that is there already fails alone.
        let mut requests = tokio::task::JoinSet::new();
        for id in 490..530_i64 {
            let groups = groups.clone();
            requests.spawn(async move { (id, groups.put(id).await.is_ok()) });
        }
        for (id, written) in requests.join_all().await {
            assert_eq!(written, id >= 500, "{id}");
        }
        assert_eq!(count(&pg).await, 530);
    }

    #[test]
    fn under_a_pace_what_arrives_before_the_next_turn_is_written_together() {
        testkit::sim::within(async {
            let sim = Arc::new(testkit::sim::Sim::new(1, false));
            let batches = Arc::new(parking_lot::Mutex::new(Vec::new()));
            let seen = Arc::clone(&batches);
            let groups = Groups::new(9, Duration::from_millis(5), move |items: Vec<u8>| {
                seen.lock().push(items.clone());
                async move { Ok(items) }
            });
            let mut requests = tokio::task::JoinSet::new();
            // Eight at once let the next ones wait for the whole pace, one for three milliseconds.
            let first = (1..=8).map(|item| (item, 0));
            for (item, after) in first.chain([(9, 1), (10, 4), (11, 12), (12, 13), (13, 16), (14, 25)]) {
                let (groups, sim) = (groups.clone(), Arc::clone(&sim));
                requests.spawn(async move {
                    sim.sleep(after).await;
                    groups.put(item).await
                });
            }
            assert_eq!(requests.join_all().await.iter().filter(|answer| answer.is_ok()).count(), 14);
            assert_eq!(sim.elapsed(), 25, "who comes to an idle one does not wait");
            let batches: Vec<Vec<u8>> = batches.lock().clone();
            let each = [(1..=8).collect(), vec![9, 10], vec![11], vec![12], vec![13], vec![14]];
            assert_eq!(batches, each);
        });
    }

    #[test]
    fn what_a_full_batch_left_behind_does_not_wait() {
        testkit::sim::within(async {
            let sim = testkit::sim::Sim::new(1, false);
            let groups = Groups::new(3, Duration::from_millis(5), |items: Vec<u8>| async move { Ok(items) });
            let mut requests = tokio::task::JoinSet::new();
            for item in 0..5 {
                let groups = groups.clone();
                requests.spawn(async move { groups.put(item).await });
            }
            requests.join_all().await;
            assert_eq!(sim.elapsed(), 0);
        });
    }

    #[tokio::test]
    async fn what_time_can_heal_is_told_to_all() {
        let groups: Groups<u8, u8> =
            Groups::new(8, Duration::ZERO, |_| async { Err(StoreError::Transient("away".into())) });
        assert_eq!(groups.put(1).await, Err(StoreError::Transient("away".into())));
        let groups: Groups<u8, u8> = Groups::new(8, Duration::ZERO, |_| async { Ok(vec![]) });
        assert!(matches!(groups.put(1).await, Err(StoreError::Fault(_))));
    }
}

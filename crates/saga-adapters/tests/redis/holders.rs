//! A lock that two hold: its key was lost, or its time was over, while the first was still at it.

use std::sync::atomic::AtomicU32;

use saga_runtime::{Loaded, ReadThrough};
use tokio::sync::oneshot;

use super::*;

/// A replica of a service: a connection of its own, the same keys.
async fn replica(prefix: &str) -> ReadThrough {
    let cluster = connected(servers().await, patient()).await;
    let cache = RedisCache::new(cluster.clone(), &format!("{prefix}cache:"));
    ReadThrough::new(Arc::new(cache), Arc::new(RedisLock::new(cluster, &format!("{prefix}lock:"))), "cup", LONG)
}

/// A read of the database that has the row in hand, and then takes its time.
struct Read {
    begun: oneshot::Receiver<()>,
    go_on: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Option<u64>>,
}

fn read(replica: &ReadThrough, reads: &Arc<AtomicU32>, version: u64) -> Read {
    let ((has_begun, begun), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
    let (replica, reads) = (replica.clone(), Arc::clone(reads));
    let done = tokio::spawn(async move {
        let load = async || {
            reads.fetch_add(1, Relaxed);
            has_begun.send(()).unwrap();
            may_go_on.await.unwrap();
            Ok::<_, ()>(Some(Loaded { value: version, version, keep: true }))
        };
        replica.get(7, load).await.unwrap()
    });
    Read { begun, go_on, done }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c04_two_that_hold_one_lock_are_a_second_read_and_nothing_worse() {
    let servers = servers().await;
    for first_ends_first in [true, false] {
        let prefix = fresh("holders");
        let (one, two, three) = (replica(&prefix).await, replica(&prefix).await, replica(&prefix).await);
        let reads = Arc::new(AtomicU32::new(0));
        let first = read(&one, &reads, 1);
        first.begun.await.unwrap();
        let key = format!("{prefix}lock:cup:7");
        let master = servers.master_of(&key).await;
        let token = servers.ask(master, &format!("GET {key}")).await.unwrap();
        assert_eq!(servers.ask(master, &format!("DEL {key}")).await.unwrap(), "1", "the first has it");
        // The row changes meanwhile; whoever changed it could not tell the cache.
        let second = read(&two, &reads, 2);
        second.begun.await.unwrap();
        let others = servers.ask(master, &format!("GET {key}")).await.unwrap();
        assert!(!others.is_empty() && others != token, "the second has it, too: {others}");
        if first_ends_first {
            first.go_on.send(()).unwrap();
            assert_eq!(first.done.await.unwrap(), Some(1), "as it was when it was read");
            // Its release is not waited for, but goes over the same connection before this.
            one.peek::<u64>(7).await.unwrap();
            assert_eq!(servers.ask(master, &format!("GET {key}")).await.unwrap(), others, "still the second's");
            second.go_on.send(()).unwrap();
            assert_eq!(second.done.await.unwrap(), Some(2));
        } else {
            second.go_on.send(()).unwrap();
            assert_eq!(second.done.await.unwrap(), Some(2));
            first.go_on.send(()).unwrap();
            assert_eq!(first.done.await.unwrap(), Some(1), "as it was when it was read");
        }
        assert_eq!(reads.load(Relaxed), 2, "a second read");
        let none = async || -> Result<Option<Loaded<u64>>, ()> { panic!("it is in the cache") };
        assert_eq!(three.get(7, none).await.unwrap(), Some(2), "the older one is not put over the newer one");
        until("the lock to be free", || async { servers.ask(master, &format!("EXISTS {key}")).await.unwrap() == "0" })
            .await;
    }
}

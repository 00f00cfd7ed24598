//! Prices for several purchases in one question: what is asked for while the last question is fresh goes out together.
//!
//! A question costs four processes something (two services, and the edge between them), however many products it is about.
//! Prices are as fresh as before: nothing is kept. A question that hangs holds up nobody but those that are in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use saga_runtime::Clock;
use saga_runtime::pace::{Pace, gather};
use saga_runtime::trace::{self, TraceContext};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{Catalogue, CatalogueError};
use crate::domain::Quote;

/// The most products in one question: the product service's limit, and a cart's.
const MOST: usize = 100;
/// Requests that may wait for a question; beyond that they wait for their place.
const QUEUE: usize = 1024;

/// A catalogue that is asked for several at once.
struct Together {
    catalogue: Arc<dyn Catalogue>,
    queue: mpsc::Sender<Asked>,
}

/// One request's part of a question.
struct Asked {
    products: Vec<u64>,
    trace: Option<TraceContext>,
    answer: oneshot::Sender<Result<Vec<Quote>, CatalogueError>>,
}

/// Asks `catalogue` as `saga_runtime::pace` says; zero: each request for itself.
pub(crate) fn together(
    catalogue: Arc<dyn Catalogue>,
    pace: Duration,
    clock: Arc<dyn Clock>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Arc<dyn Catalogue> {
    if pace.is_zero() {
        return catalogue;
    }
    let (queue, asked) = mpsc::channel(QUEUE);
    tasks.spawn(questions(Arc::clone(&catalogue), asked, pace, clock, tasks.clone(), stop));
    Arc::new(Together { catalogue, queue })
}

#[async_trait]
impl Catalogue for Together {
    async fn quote(&self, product_ids: &[u64]) -> Result<Vec<Quote>, CatalogueError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { products: product_ids.to_vec(), trace: trace::current(), answer };
        // At a shutdown there are no more questions, but perhaps still requests.
        if self.queue.send(asked).await.is_err() {
            return self.catalogue.quote(product_ids).await;
        }
        match answered.await {
            Ok(answer) => answer,
            Err(_) => self.catalogue.quote(product_ids).await,
        }
    }
}

async fn questions(
    catalogue: Arc<dyn Catalogue>,
    mut asked: mpsc::Receiver<Asked>,
    pace: Duration,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut pace = Pace::new(pace, QUEUE);
    let mut waiting = Vec::new();
    while pace.turn(&*clock, &stop).await {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            count = gather(&mut asked, &mut waiting, QUEUE) => if count == 0 { return },
        }
        pace.begin(&*clock, waiting.len());
        for question in split(std::mem::take(&mut waiting)) {
            tasks.spawn(ask(Arc::clone(&catalogue), question));
        }
    }
}

/// Questions of no more than [`MOST`] products each, in the order of the requests.
fn split(waiting: Vec<Asked>) -> Vec<(BTreeSet<u64>, Vec<Asked>)> {
    let mut questions: Vec<(BTreeSet<u64>, Vec<Asked>)> = Vec::with_capacity(1);
    for asked in waiting {
        let fits = questions.last_mut().filter(|(products, _)| {
            products.len() + asked.products.iter().filter(|id| !products.contains(*id)).count() <= MOST
        });
        match fits {
            Some((products, all)) => {
                products.extend(&asked.products);
                all.push(asked);
            }
            None => questions.push((asked.products.iter().copied().collect(), vec![asked])),
        }
    }
    questions
}

/// One question, for all who are in it: it stands in each trace that is kept.
async fn ask(catalogue: Arc<dyn Catalogue>, (products, all): (BTreeSet<u64>, Vec<Asked>)) {
    let products: Vec<u64> = products.into_iter().collect();
    let traces: Vec<_> = all.iter().filter_map(|asked| asked.trace).collect();
    let answer = trace::within_all(&traces, catalogue.quote(&products)).await;
    for asked in all {
        let own = |quotes: &Vec<Quote>| -> Vec<Quote> {
            quotes.iter().filter(|quote| asked.products.contains(&quote.product_id)).cloned().collect()
        };
        let own = answer.as_ref().map(own).map_err(Clone::clone);
        // Whoever asked may have gone.
        let _ = asked.answer.send(own);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use parking_lot::Mutex;
    use saga_runtime::SystemClock;
    use tokio::sync::Notify;

    use super::*;

    /// Knows the products below 1000, notes every question and for whom it is; waits for a word before it answers about
    /// product 13.
    #[derive(Default)]
    struct Prices {
        questions: Mutex<Vec<Vec<u64>>>,
        traces: Mutex<Vec<TraceContext>>,
        word: Notify,
    }

    #[async_trait]
    impl Catalogue for Prices {
        async fn quote(&self, product_ids: &[u64]) -> Result<Vec<Quote>, CatalogueError> {
            self.questions.lock().push(product_ids.to_vec());
            self.traces.lock().extend(trace::current().into_iter().chain(trace::others()));
            if product_ids.contains(&13) {
                self.word.notified().await;
            }
            if product_ids.contains(&666) {
                return Err(CatalogueError::Unavailable("away".into()));
            }
            let quote = |id: &u64| Quote { product_id: *id, price: 10, currency_code: "VND".into() };
            Ok(product_ids.iter().filter(|id| **id < 1_000).map(quote).collect())
        }
    }

    struct Desk {
        prices: Arc<Prices>,
        together: Arc<dyn Catalogue>,
        tasks: TaskTracker,
        stop: CancellationToken,
    }

    fn desk() -> Desk {
        let (prices, tasks, stop) = (Arc::new(Prices::default()), TaskTracker::new(), CancellationToken::new());
        let catalogue: Arc<dyn Catalogue> = prices.clone();
        // The machine's clock reads real time while the runtime's stands still: an hour never passes by itself.
        let together = together(catalogue, Duration::from_secs(3_600), Arc::new(SystemClock), &tasks, stop.clone());
        Desk { prices, together, tasks, stop }
    }

    impl Desk {
        fn asks(&self, ids: &[u64]) -> tokio::task::JoinHandle<Result<Vec<u64>, CatalogueError>> {
            let (together, ids) = (Arc::clone(&self.together), ids.to_vec());
            self.tasks.spawn(async move {
                let quotes = together.quote(&ids).await?;
                Ok(quotes.iter().map(|quote| quote.product_id).collect())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_the_last_question_is_fresh_shares_the_next_one() {
        let desk = desk();
        assert_eq!(desk.asks(&[1]).await.unwrap(), Ok(vec![1]));
        let (second, third, fourth) = (desk.asks(&[1, 2]), desk.asks(&[2, 3]), desk.asks(&[5_000]));
        assert_eq!(second.await.unwrap(), Ok(vec![1, 2]));
        assert_eq!(third.await.unwrap(), Ok(vec![2, 3]));
        assert_eq!(fourth.await.unwrap(), Ok(vec![]), "what is not known is left out");
        assert_eq!(*desk.prices.questions.lock(), [vec![1], vec![1, 2, 3, 5_000]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_in_the_trace_of_each_who_shares_it() {
        let desk = desk();
        let context = |span: u64| TraceContext { trace: u128::from(span), span, sampled: true };
        let asks = |span: u64| {
            let together = Arc::clone(&desk.together);
            desk.tasks.spawn(trace::within(context(span), async move { together.quote(&[span]).await.map(drop) }))
        };
        let (first, untraced, second) = (asks(1), desk.asks(&[5]), asks(2));
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(()), Ok(())));
        untraced.await.unwrap().unwrap();
        assert_eq!(desk.prices.questions.lock().len(), 1, "one question");
        assert_eq!(*desk.prices.traces.lock(), [context(1), context(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_hangs_holds_up_nobody_else() {
        let desk = desk();
        let hangs = desk.asks(&[13]);
        tokio::task::yield_now().await;
        assert_eq!(desk.asks(&[1]).await.unwrap(), Ok(vec![1]));
        assert!(!hangs.is_finished());
        desk.prices.word.notify_one();
        assert_eq!(hangs.await.unwrap(), Ok(vec![13]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_told_to_all_who_are_in_it() {
        let desk = desk();
        let (first, second) = (desk.asks(&[1]), desk.asks(&[666]));
        let away = Err(CatalogueError::Unavailable("away".into()));
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (away.clone(), away));
    }

    #[tokio::test(start_paused = true)]
    async fn no_question_is_longer_than_the_product_service_takes() {
        let desk = desk();
        let ids: Vec<u64> = (100..160).collect();
        let more: Vec<u64> = (130..220).collect();
        let (first, second) = (desk.asks(&ids), desk.asks(&more));
        assert_eq!(first.await.unwrap(), Ok(ids.clone()));
        assert_eq!(second.await.unwrap(), Ok(more.clone()));
        assert_eq!(*desk.prices.questions.lock(), [ids, more]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_stop_each_asks_for_itself() {
        let desk = desk();
        assert_eq!(desk.asks(&[1]).await.unwrap(), Ok(vec![1]));
        let waiting = desk.asks(&[2]);
        tokio::task::yield_now().await;
        desk.stop.cancel();
        assert_eq!(waiting.await.unwrap(), Ok(vec![2]));
        assert_eq!(desk.asks(&[3]).await.unwrap(), Ok(vec![3]));
        desk.tasks.close();
        desk.tasks.wait().await;
    }
}

//! Many files, each ordered by id, read side by side: one dossier an id, however many there are.

use std::iter::Peekable;

use saga_adapters::sqlite::saga_store::Audited;

use super::facts::{Dossier, Effect, Order, Payment, Purchase};

/// One row of one file.
#[derive(Debug)]
pub enum Fact {
    /// A saga, of any definition.
    Saga(Box<Audited>),
    /// A purchase.
    Purchase(Purchase),
    /// An order.
    Order(Order),
    /// A payment.
    Payment(Payment),
    /// Pieces taken (more than zero) or put back (less than zero) by the saga.
    Entry {
        /// Which product.
        product_id: u64,
        /// How many.
        taken: i64,
    },
    /// What a participant remembers.
    Effect(Effect),
}

/// Rows of one file by ascending id; an error ends it.
pub type Feed = Box<dyn Iterator<Item = Result<(u64, Fact), String>>>;

/// Dossiers by ascending id.
pub struct Merge {
    feeds: Vec<Peekable<Feed>>,
}

impl Merge {
    /// Over these files.
    pub fn new(feeds: Vec<Feed>) -> Self {
        Self { feeds: feeds.into_iter().map(Iterator::peekable).collect() }
    }
}

impl Iterator for Merge {
    type Item = Result<Dossier, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut lowest: Option<u64> = None;
        for feed in &mut self.feeds {
            match feed.peek() {
                None => {}
                Some(Err(error)) => return Some(Err(error.clone())),
                Some(Ok((id, _))) => lowest = Some(lowest.map_or(*id, |low| low.min(*id))),
            }
        }
        let id = lowest?;
        let mut dossier = Dossier { id, ..Dossier::default() };
        for feed in &mut self.feeds {
            while let Some(Ok((_, fact))) = feed.next_if(|row| row.as_ref().is_ok_and(|(of, _)| *of == id)) {
                add(&mut dossier, fact);
            }
        }
        Some(Ok(dossier))
    }
}

fn add(dossier: &mut Dossier, fact: Fact) {
    match fact {
        Fact::Saga(audited) if audited.key.definition == "purchase" => dossier.saga = Some(*audited),
        Fact::Saga(audited) => dossier.others.push(*audited),
        Fact::Purchase(purchase) => dossier.purchase = Some(purchase),
        Fact::Order(order) => dossier.order = Some(order),
        Fact::Payment(payment) => dossier.payment = Some(payment),
        Fact::Entry { product_id, taken } => {
            *dossier.stock.entry(product_id).or_default() += taken;
            let (times_taken, times_back) = dossier.entries.entry(product_id).or_default();
            *(if taken > 0 { times_taken } else { times_back }) += 1;
        }
        Fact::Effect(effect) => dossier.effects.push(effect),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn feed(rows: Vec<(u64, i64)>) -> Feed {
        Box::new(rows.into_iter().map(|(id, taken)| Ok((id, Fact::Entry { product_id: 9, taken }))))
    }

    #[test]
    fn rows_of_one_id_meet_whatever_file_they_are_in() {
        let merged: Vec<Dossier> =
            Merge::new(vec![feed(vec![(1, 4), (3, 5), (3, -5)]), feed(vec![(2, 1), (3, 7)]), feed(vec![])])
                .collect::<Result<_, _>>()
                .unwrap();
        let seen: Vec<(u64, i64, (u32, u32))> = merged.iter().map(|d| (d.id, d.stock[&9], d.entries[&9])).collect();
        assert_eq!(seen, [(1, 4, (1, 0)), (2, 1, (1, 0)), (3, 7, (2, 1))]);
    }

    #[test]
    fn a_file_that_cannot_be_read_ends_the_check() {
        let broken: Feed = Box::new([Err("torn".to_owned())].into_iter());
        assert!(Merge::new(vec![feed(vec![(1, 1)]), broken]).next().unwrap().is_err());
    }
}

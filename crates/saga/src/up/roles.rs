//! What a process is there for.

use std::fmt;

use clap::ValueEnum;

/// One of the six services, or the pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, ValueEnum)]
pub enum ServiceRole {
    /// Accounts, tokens and their keys.
    Account,
    /// The catalogue and the stock.
    Product,
    /// Orders.
    Order,
    /// Payments.
    Payment,
    /// Takes purchases and tells how they go.
    Purchase,
    /// Drives the sagas; operators come here.
    Orchestrator,
    /// The pages: the shop for customers, the console for operators.
    Console,
}

/// The six services, each with rows of its own. A process that runs them all has the pages, too.
pub const ALL: [ServiceRole; 6] = [
    ServiceRole::Account,
    ServiceRole::Product,
    ServiceRole::Order,
    ServiceRole::Payment,
    ServiceRole::Purchase,
    ServiceRole::Orchestrator,
];

impl ServiceRole {
    /// Whether it keeps rows and has its part in the saga; the pages have neither.
    pub fn is_service(self) -> bool {
        self != ServiceRole::Console
    }

    /// Its name: of its database, its settings, its place in the edge's table.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceRole::Account => "account",
            ServiceRole::Product => "product",
            ServiceRole::Order => "order",
            ServiceRole::Payment => "payment",
            ServiceRole::Purchase => "purchase",
            ServiceRole::Orchestrator => "orchestrator",
            ServiceRole::Console => "console",
        }
    }
}

impl fmt::Display for ServiceRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

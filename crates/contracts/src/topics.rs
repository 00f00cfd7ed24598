//! Names of the topics: the original's, and `confirm-order`. Defaults; a definition file may name others.

/// A purchase to start (or to cancel).
pub const PURCHASE: &str = "purchase";
/// Result events for customers: step × status.
pub const PURCHASE_RESULT: &str = "purchase-result";
/// Take stock.
pub const UPDATE_PRODUCT_INVENTORY: &str = "update-product-inventory";
/// Put stock back.
pub const ROLLBACK_PRODUCT_INVENTORY: &str = "rollback-product-inventory";
/// Make the order, pending.
pub const CREATE_ORDER: &str = "create-order";
/// Cancel the order.
pub const ROLLBACK_ORDER: &str = "rollback-order";
/// Charge.
pub const CREATE_PAYMENT: &str = "create-payment";
/// Void the charge.
pub const ROLLBACK_PAYMENT: &str = "rollback-payment";
/// Confirm the order.
pub const CONFIRM_ORDER: &str = "confirm-order";
/// Replies of all participants.
pub const REPLY: &str = "reply";

/// Every topic of the shop. Each has a `<topic>.dlq` beside it.
pub const ALL: [&str; 10] = [
    PURCHASE,
    PURCHASE_RESULT,
    UPDATE_PRODUCT_INVENTORY,
    ROLLBACK_PRODUCT_INVENTORY,
    CREATE_ORDER,
    ROLLBACK_ORDER,
    CREATE_PAYMENT,
    ROLLBACK_PAYMENT,
    CONFIRM_ORDER,
    REPLY,
];

/// What a dead-letter topic's name ends with.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn quote(product_id: u64, price: i64) -> Quote {
    Quote { product_id, price, currency_code: "VND".to_owned() }
}

fn pointers(error: CartError) -> Vec<String> {
    match error {
        CartError::Invalid(errors) => errors.into_iter().map(|(pointer, _)| pointer).collect(),
        other => panic!("{other:?}"),
    }
}

fn wrong(lines: &[(u64, i64)], currency: &str) -> Vec<String> {
    pointers(Cart::new(lines, currency).unwrap_err())
}

#[test]
fn the_walkthrough_of_the_original_costs_what_it_did() {
    let cart = Cart::new(&[(7, 4), (8, 5)], "VND").unwrap();
    let input = cart.priced(1, 2, &[quote(8, 3780), quote(7, 1390)]).unwrap();
    assert_eq!(input.amount, 4 * 1390 + 5 * 3780);
    assert_eq!(input.items.iter().map(|i| i.product_id).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn a02_g14_quantities_outside_the_limits_are_refused_where_they_stand() {
    for quantity in [0, -1, i64::MIN, 1_000_001, i64::MAX] {
        assert_eq!(wrong(&[(1, 1), (2, quantity)], "VND"), ["#/order_items/1/quantity"], "{quantity}");
    }
    assert!(Cart::new(&[(1, 1), (2, 1_000_000)], "VND").is_ok());
}

#[test]
fn a03_duplicate_lines_are_merged_and_cannot_get_around_the_limit() {
    let cart = Cart::new(&[(2, 1), (1, 3), (2, 4)], "VND").unwrap();
    let input = cart.priced(1, 1, &[quote(1, 10), quote(2, 100)]).unwrap();
    let items: Vec<_> = input.items.iter().map(|i| (i.product_id, i.quantity)).collect();
    assert_eq!(items, [(1, 3), (2, 5)]);
    assert_eq!(input.amount, 530);
    assert_eq!(wrong(&[(2, 600_000), (2, 600_000)], "VND"), ["#/order_items/1/quantity"]);
}

#[test]
fn a04_an_empty_cart_and_too_many_lines_are_refused() {
    assert_eq!(wrong(&[], "VND"), ["#/order_items"]);
    let lines = |count: u64| (1..=count).map(|id| (id, 1)).collect::<Vec<_>>();
    assert!(Cart::new(&lines(100), "VND").is_ok());
    assert_eq!(wrong(&lines(101), "VND"), ["#/order_items"]);
    assert_eq!(wrong(&lines(10_001), "VND"), ["#/order_items"]);
}

#[test]
fn a05_only_the_products_currency_is_taken() {
    for shape in ["", "vnd", "VN", "VNDX", "V D", "ÄÖ", "123"] {
        assert_eq!(wrong(&[(1, 1)], shape), ["#/payment/currency_code"], "{shape:?}");
    }
    let cart = Cart::new(&[(1, 1)], "USD").unwrap();
    assert!(matches!(cart.priced(1, 1, &[quote(1, 10)]), Err(CartError::UnsupportedCurrency(_))));
    let mixed = [quote(1, 10), Quote { currency_code: "EUR".to_owned(), ..quote(2, 10) }];
    let cart = Cart::new(&[(1, 1), (2, 1)], "VND").unwrap();
    assert!(matches!(cart.priced(1, 1, &mixed), Err(CartError::UnsupportedCurrency(_))));
}

#[test]
fn an_unknown_product_is_named_by_the_line_that_wanted_it() {
    let cart = Cart::new(&[(9, 1), (1, 1)], "VND").unwrap();
    assert_eq!(pointers(cart.priced(1, 1, &[quote(1, 10)]).unwrap_err()), ["#/order_items/0/product_id"]);
}

#[test]
fn a01_g12_an_amount_that_wraps_or_that_no_client_can_hold_is_refused() {
    let cart = Cart::new(&[(1, 1_000_000)], "VND").unwrap();
    for price in [i64::MAX, MAX_AMOUNT, MAX_AMOUNT / 1_000_000 + 1] {
        assert_eq!(cart.priced(1, 1, &[quote(1, price)]), Err(CartError::AmountOutOfRange), "{price}");
    }
    assert!(cart.priced(1, 1, &[quote(1, MAX_AMOUNT / 1_000_000)]).is_ok());
}

#[test]
fn g24_product_ids_that_no_client_can_hold_are_refused() {
    for id in [0, MAX_SAFE + 1, u64::MAX] {
        assert_eq!(wrong(&[(id, 1)], "VND"), ["#/order_items/0/product_id"], "{id}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let found = wrong(&[(0, 0), (1, 1), (2, -1)], "dong");
    let expected = [
        "#/order_items/0/product_id",
        "#/order_items/0/quantity",
        "#/order_items/2/quantity",
        "#/payment/currency_code",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a13_idempotency_keys_are_quoted_or_bare_and_never_odd() {
    assert_eq!(idempotency_key(b"\"8e03978e\""), Some("8e03978e"));
    assert_eq!(idempotency_key(b" 8e03978e "), Some("8e03978e"));
    assert_eq!(idempotency_key(b"a b"), Some("a b"));
    let long = "k".repeat(255);
    assert_eq!(idempotency_key(long.as_bytes()), Some(long.as_str()));
    let longer = "k".repeat(256);
    let wrong: [&[u8]; 9] =
        [b"", b"\"\"", b"   ", b"\"open", b"close\"", b"a\"b", b"a\\b", b"\xff\xfe", longer.as_bytes()];
    for wrong in wrong {
        assert_eq!(idempotency_key(wrong), None, "{wrong:?}");
    }
}

#[test]
fn a_status_follows_from_the_events() {
    use ResultStatus::{Execute, Failed, Rollback, RollbackFailed, Success};
    let fold = |events: &[(ResultStatus, bool)]| {
        events.iter().fold(Status::Pending, |status, &(event, terminal)| status.after(event, terminal))
    };
    assert_eq!(fold(&[]), Status::Pending);
    assert_eq!(fold(&[(Execute, false)]), Status::Running);
    assert_eq!(fold(&[(Execute, false), (Success, false), (Success, true)]), Status::Completed);
    assert_eq!(fold(&[(Execute, false), (Failed, false)]), Status::Compensating);
    assert_eq!(fold(&[(Execute, false), (Failed, false), (Success, false)]), Status::Compensating);
    assert_eq!(fold(&[(Rollback, false), (RollbackFailed, false)]), Status::CompensationStuck);
    assert_eq!(fold(&[(RollbackFailed, false), (Rollback, false)]), Status::Compensating);
    assert_eq!(fold(&[(Failed, false), (Rollback, true)]), Status::Compensated);
    assert_eq!(fold(&[(Success, true), (Rollback, true), (Execute, false)]), Status::Completed);
}

#[test]
fn every_status_has_one_name() {
    for status in Status::ALL {
        assert_eq!(Status::from_text(status.as_str()), Some(status));
    }
    assert_eq!(Status::from_text("RUNNING "), None);
}

proptest! {
    #[test]
    fn a_cart_that_is_taken_is_within_every_limit(
        lines in prop::collection::vec((any::<u64>().prop_map(|id| id % 20), -2_i64..1_200_000), 0..120),
        price in prop_oneof![0_i64..10_000, any::<i64>()],
    ) {
        if let Ok(cart) = Cart::new(&lines, "VND") {
            let total: i64 = lines.iter().map(|(_, quantity)| quantity).sum();
            let quotes: Vec<Quote> = cart.products().into_iter().map(|id| quote(id, price)).collect();
            match cart.priced(1, 1, &quotes) {
                Ok(input) => {
                    prop_assert!((0..=MAX_AMOUNT).contains(&input.amount));
                    prop_assert_eq!(i128::from(input.amount), i128::from(total) * i128::from(price));
                    prop_assert!(input.items.is_sorted_by(|a, b| a.product_id < b.product_id));
                    prop_assert_eq!(input.items.iter().map(|i| i.quantity).sum::<i64>(), total);
                    prop_assert!(input.items.iter().all(|i| (1..=MAX_QUANTITY).contains(&i.quantity)));
                }
                Err(error) => {
                    prop_assert_eq!(error, CartError::AmountOutOfRange);
                    let exact = i128::from(total) * i128::from(price);
                    prop_assert!(exact < 0 || exact > i128::from(MAX_AMOUNT));
                }
            }
        }
    }

    #[test]
    fn the_fingerprint_knows_what_is_bought_and_not_how_it_was_written(
        mut lines in prop::collection::vec((1_u64..50, 1_i64..1_000), 1..20),
        product in 1_u64..60,
    ) {
        let fingerprint = |lines: &[(u64, i64)], currency| Cart::new(lines, currency).unwrap().fingerprint();
        let before = fingerprint(&lines, "VND");
        lines.reverse();
        prop_assert_eq!(fingerprint(&lines, "VND"), before);
        prop_assert_ne!(fingerprint(&lines, "EUR"), before);
        lines.push((product, 1));
        prop_assert_ne!(fingerprint(&lines, "VND"), before);
    }
}

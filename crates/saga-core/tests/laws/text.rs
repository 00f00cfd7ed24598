//! What people read, word for word.

use saga_core::render::{definition_text, saga_text};

use crate::definitions::purchase;
use crate::world::{Weather, World};

fn timeline(world: &World) -> String {
    saga_text(world.saga(), world.history.iter().map(Vec::as_slice))
}

#[test]
fn a_definition_is_a_line_a_step() {
    let expected = "\
saga purchase v1, deadline 5m
  start on purchase, replies on reply, results on purchase-result
  1. update-product-inventory (compensatable)  do update-product-inventory  undo rollback-product-inventory  timeout 10s  retry 200ms×2 up to 30s for ever  undo retry 200ms×2 up to 30s 15 times
  2. create-order (compensatable)  do create-order  undo rollback-order  after update-product-inventory  timeout 10s  retry 200ms×2 up to 30s for ever  undo retry 200ms×2 up to 30s 15 times
  3. create-payment (pivot)  do create-payment  undo rollback-payment  after create-order  timeout 10s  retry 200ms×2 up to 30s for ever  undo retry 200ms×2 up to 30s 15 times
  4. confirm-order (retriable)  do confirm-order  after create-payment  timeout 10s  retry 200ms×2 up to 30s for ever
";
    assert_eq!(definition_text(&purchase()), expected);
}

#[test]
fn a_saga_that_was_declined_tells_its_story() {
    let mut world = World::new(purchase(), Weather::default(), 0);
    world.shop.refuses.insert("create-payment".into());
    world.start();
    world.run();
    let expected = "\
purchase/7 COMPENSATED (definition v1, version 6)
reason: no: business said no
      +0ms  started, definition v1
      +0ms  update-product-inventory: do sent
      +0ms  update-product-inventory: done
      +0ms  create-order: do sent
      +0ms  create-order: done
      +0ms  create-payment: do sent
      +0ms  create-payment: refused, no: business said no
      +0ms  compensation begun, no: business said no
      +0ms  create-order: undo sent
      +0ms  create-order: undone
      +0ms  update-product-inventory: undo sent
      +0ms  update-product-inventory: undone
      +0ms  COMPENSATED
";
    assert_eq!(timeline(&world), expected);
}

#[test]
fn a_saga_on_its_way_tells_what_it_waits_for() {
    let mut world = World::calm(purchase());
    world.wire.clear();
    world.now += 10_400;
    world.timer();
    let told = timeline(&world);
    assert!(told.starts_with("purchase/7 RUNNING (definition v1, version 2)\n"), "{told}");
    assert!(told.ends_with("  +10.400s  update-product-inventory: do sent again, attempt 2\n"), "{told}");
    let (step, op) = world.saga().awaited().unwrap();
    assert_eq!((step.as_str(), op.as_str()), ("update-product-inventory", "do"));
}

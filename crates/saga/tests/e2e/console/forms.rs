//! What operators do, through the forms as they stand in the pages: one saga, many, dead letters, failures on purpose; and
//! what a second operator is told who looked at the same.

use hyper::{Method, StatusCode};
use saga::remote::Answer;
use serde_json::{Value, json};

use super::scene::{OLGA, OSCAR, Scene};
use super::visitor::{Form, Visitor, tags, text};
use crate::town::{BodyJson as _, comes_to, eventually};

/// Sends what was asked.
async fn told(visitor: &mut Visitor, form: &Form, reason: &str) -> Answer {
    let mut filled = vec![("reason", reason)];
    if form.action.ends_with("/resolve") {
        filled.push(("status", "COMPENSATED"));
    }
    visitor.send_form(form, &filled).await
}

/// The page after an order that was carried out.
async fn shown_after(visitor: &mut Visitor, done: &Answer) -> String {
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", text(done));
    let shown = visitor.get(done.header("location")).await;
    assert_eq!(shown.status, StatusCode::OK);
    text(&shown)
}

/// How many orders with this reason a saga's history has.
fn times(saga: &Value, reason: &str) -> usize {
    let lines = saga["text"].as_str().unwrap().lines();
    lines.filter(|line| line.contains(" by account ") && line.ends_with(reason)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_to_a_saga_is_asked_done_once_and_refused_to_who_looked_before() {
    let scene = Scene::stocked().await;
    let stuck = scene.stuck(4).await;
    let (mut oscar, mut olga) = (scene.operator(OSCAR).await, scene.operator(OLGA).await);
    let orders = [
        ("retry", "The saga is being tried again.", "COMPLETED"),
        ("cancel", "The saga is being taken back.", "COMPENSATED"),
        ("skip", "The stuck step counts as dealt with", "COMPLETED"),
        ("resolve", "The saga has ended as you said.", "COMPENSATED"),
    ];
    for ((verb, said, ends), id) in orders.into_iter().zip(stuck) {
        let (first, second) = (oscar.asked(id, verb).await, olga.asked(id, verb).await);
        let before = scene.saga(id).await;
        assert_eq!(first.value("version"), before["version"].to_string(), "{verb}");
        // Without a reason, and (to resolve) without saying how it ended, nothing is done.
        let silent = told(&mut oscar, &first, "").await;
        assert_eq!(silent.status, StatusCode::UNPROCESSABLE_ENTITY, "{verb}: {}", text(&silent));
        assert!(text(&silent).contains("reason"), "{verb}: {}", text(&silent));
        if verb == "resolve" {
            let open = oscar.send_form(&first, &[("reason", "to see")]).await;
            assert_eq!(open.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", text(&open));
            assert!(text(&open).contains("status"), "{}", text(&open));
        }
        assert_eq!(scene.saga(id).await, before, "{verb}");

        let done = told(&mut oscar, &first, "it is put right").await;
        let page = shown_after(&mut oscar, &done).await;
        assert!(page.contains(said) && page.contains("it is put right"), "{verb}: {page}");
        comes_to(&scene.desk(), id, ends).await;
        let after = scene.saga(id).await;
        // Olga looked at what is no more; Oscar pressed twice.
        for (visitor, form, reason) in [(&mut olga, &second, "so say I"), (&mut oscar, &first, "it is put right")] {
            let late = told(visitor, form, reason).await;
            let page = text(&late);
            assert_eq!(late.status, StatusCode::CONFLICT, "{verb}: {page}");
            assert!(page.contains("Nothing was done, because it has changed meanwhile"), "{verb}: {page}");
            assert!(page.contains("<svg") && page.contains("it is put right"), "it is shown as it is now: {page}");
        }
        assert_eq!(scene.saga(id).await, after, "{verb}");
        assert_eq!((times(&after, "it is put right"), times(&after, "so say I")), (1, 0), "{verb}: {after}");
        let lines = scene.audited(&format!("saga.{verb}")).await;
        let outcomes: Vec<&Value> = lines.iter().filter(|line| line["outcome"] == "done").collect();
        assert_eq!(outcomes.len(), 1, "one effect, one line that says done: {lines:?}");
        assert_eq!((&outcomes[0]["reason"], &outcomes[0]["target"]), (&json!("it is put right"), &target(id)));
        assert!(lines.iter().all(|line| line["actor"].as_str().unwrap().starts_with("account ")), "{lines:?}");
    }
}

fn target(id: u64) -> Value {
    format!("purchase/{id}").into()
}

/// What somebody saw is what the order is for: it would be lawful now, too, but it is another saga by now.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_what_has_come_to_the_same_state_again_is_refused() {
    let scene = Scene::stocked().await;
    let id = scene.stuck(1).await[0];
    let (mut oscar, mut olga) = (scene.operator(OSCAR).await, scene.operator(OLGA).await);
    scene.fail(&json!({ "steps": { "create-payment": { "unknown_rate": 1.0 } } })).await;
    let mut orders = Vec::new();
    for verb in ["retry", "cancel", "skip", "resolve"] {
        orders.push(olga.asked(id, verb).await);
    }
    let before = scene.saga(id).await["version"].as_u64().unwrap();
    let retry = oscar.asked(id, "retry").await;
    let done = told(&mut oscar, &retry, "once more").await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    let now = eventually("it is stuck again", || async {
        let saga = scene.saga(id).await;
        (saga["status"] == "STUCK" && saga["version"].as_u64() > Some(before + 1)).then_some(saga)
    })
    .await;
    for order in &orders {
        let late = told(&mut olga, order, "what I saw").await;
        assert_eq!(late.status, StatusCode::CONFLICT, "{}: {}", order.action, text(&late));
        let shown = text(&late);
        assert!(shown.contains("Nothing was done, because it has changed meanwhile") && shown.contains("once more"));
    }
    assert_eq!(scene.saga(id).await, now);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_who_press_at_the_same_time_have_one_effect() {
    let scene = Scene::stocked().await;
    let id = scene.stuck(1).await[0];
    let (mut oscar, mut olga) = (scene.operator(OSCAR).await, scene.operator(OLGA).await);
    let (first, second) = (oscar.asked(id, "cancel").await, olga.asked(id, "cancel").await);
    let (one, two) = tokio::join!(told(&mut oscar, &first, "says Oscar"), told(&mut olga, &second, "says Olga"));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 409], "{} {}", text(&one), text(&two));
    let saga = comes_to(&scene.desk(), id, "COMPENSATED").await;
    assert_eq!(times(&saga, "says Oscar") + times(&saga, "says Olga"), 1, "{saga}");
    let lines = scene.audited("saga.cancel").await;
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "done").count(), 1, "{lines:?}");
}

const BULK: &str = "/console/sagas/bulk";

#[tokio::test(flavor = "multi_thread")]
async fn many_are_first_shown_and_then_done_for_exactly_those() {
    let scene = Scene::stocked().await;
    let stuck = scene.stuck(4).await;
    let (mut oscar, mut olga) = (scene.operator(OSCAR).await, scene.operator(OLGA).await);
    // The list leads there with its filters.
    let list = text(&oscar.get("/console/sagas?state=STUCK&step=create-payment").await);
    let link =
        tags(&list).into_iter().find_map(|tag| tag.attribute("href").map(str::to_owned).filter(|to| to.contains(BULK)));
    let page = link.unwrap();
    let asks = Form::in_page(&text(&oscar.get(&page).await), BULK);
    assert_eq!((asks.value("state"), asks.value("step")), ("STUCK", "create-payment"), "{page}");
    let filled = [("verb", "cancel"), ("reason", "the gateway is gone")];

    let before = scene.state().await["sagas"].clone();
    let dry = text(&oscar.submit(&page, BULK, &filled).await);
    assert!(dry.contains("It would be 4 sagas") && stuck.iter().all(|id| dry.contains(&id.to_string())), "{dry}");
    assert!(dry.contains("create-payment") && dry.contains("STUCK"), "the filter is said: {dry}");
    assert_eq!(scene.state().await["sagas"], before, "showing does nothing");
    let order = Form::all(&dry).into_iter().find(|form| form.value("expect_count") == "4").unwrap();

    // Meanwhile somebody deals with one of them: four were shown, so three are not done.
    let one = olga.asked(stuck[0], "retry").await;
    told(&mut olga, &one, "this one is mine").await;
    comes_to(&scene.desk(), stuck[0], "COMPLETED").await;
    let late = oscar.send_form(&order, &[]).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", text(&late));
    assert!(text(&late).contains("notice bad") && text(&late).contains('3'), "{}", text(&late));
    for id in &stuck[1..] {
        assert_eq!(scene.saga(*id).await["status"], "STUCK");
    }
    let again = text(&oscar.submit(&page, BULK, &filled).await);
    let order = Form::all(&again).into_iter().find(|form| form.value("expect_count") == "3").unwrap();
    let done = text(&oscar.send_form(&order, &[]).await);
    assert!(done.contains("Done, to 3."), "{done}");
    for id in &stuck[1..] {
        comes_to(&scene.desk(), *id, "COMPENSATED").await;
    }
    // Pressed again, there is nothing left to do it to.
    let twice = oscar.send_form(&order, &[]).await;
    assert_eq!(twice.status, StatusCode::CONFLICT, "{}", text(&twice));
    let lines = scene.audited("sagas.bulk").await;
    let done: Vec<&Value> = lines.iter().filter(|line| line["outcome"] == "done").collect();
    assert_eq!(done.len(), 1, "{lines:?}");
    assert_eq!(done[0]["reason"], "the gateway is gone");
    // A filter that cannot be is told beside the form.
    let odd = oscar.submit(BULK, BULK, &[("older_than", "soon"), ("reason", "x")]).await;
    assert_eq!(odd.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(&odd).contains("notice bad") && text(&odd).contains("older than"), "{}", text(&odd));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_sent_again_and_thrown_away_by_their_forms() {
    let scene = Scene::stocked().await;
    // One more than fits on a page.
    let letters: Vec<u64> = (0..51).map(|n| scene.bury("reply", "odd", "7", &[], &format!("garbage {n}"))).collect();
    let (mut oscar, mut olga) = (scene.operator(OSCAR).await, scene.operator(OLGA).await);
    let list = "/console/letters/reply";
    let first = text(&oscar.get(list).await);
    assert!(
        first.contains(&format!("{list}/{}\"", letters[0])) && !first.contains(&format!("{list}/{}\"", letters[50]))
    );
    let next = tags(&first)
        .into_iter()
        .find_map(|tag| tag.attribute("href").map(str::to_owned).filter(|to| to.contains("after=")));
    let second = text(&oscar.get(&next.unwrap()).await);
    assert!(second.contains(&format!("{list}/{}\"", letters[50])) && !second.contains("after="), "{second}");

    // Two of them away; a second time there is nothing to throw away.
    let purge = format!("{list}/do/purge");
    let page = format!("{purge}?ids={},{}", letters[0], letters[1]);
    let question = text(&oscar.get(&page).await);
    assert!(question.contains("Throw 2 dead letters away?"), "{question}");
    let silent = oscar.submit(&page, &purge, &[]).await;
    assert_eq!(silent.status, StatusCode::UNPROCESSABLE_ENTITY, "a reason is asked for: {}", text(&silent));
    let form = Form::in_page(&text(&olga.get(&page).await), &purge);
    let done = oscar.submit(&page, &purge, &[("reason", "nobody can read them")]).await;
    assert!(shown_after(&mut oscar, &done).await.contains("2 thrown away."));
    let late = olga.send_form(&form, &[("reason", "away with them")]).await;
    assert!(shown_after(&mut olga, &late).await.contains("Nothing was done: they are not there any more."));
    assert_eq!(oscar.get(&format!("{list}/{}", letters[0])).await.status, StatusCode::NOT_FOUND);
    // What is not understood must not mean all.
    let token = oscar.token(list).await;
    let all = super::visitor::form(&token, &[("ids", "1,x"), ("reason", "oops")]);
    let odd = oscar.send(Method::POST, &purge, &[], all).await;
    assert_eq!(odd.status, StatusCode::FORBIDDEN, "{}", text(&odd));

    let redrive = format!("{list}/do/redrive");
    let page = format!("{redrive}?ids={}", letters[2]);
    let done = oscar.submit(&page, &redrive, &[("reason", "the reader is mended")]).await;
    assert!(shown_after(&mut oscar, &done).await.contains("1 sent again."));
    let count = async || scene.desk().get("/admin/dlq").await.unwrap()["items"][0]["count"].clone();
    // It cannot be read all the same: it comes back under another number.
    eventually("it is back", || async { (count().await == 49).then_some(()) }).await;
    assert_eq!(oscar.get(&format!("{list}/{}", letters[2])).await.status, StatusCode::NOT_FOUND);
    let done = oscar.submit(&purge, &purge, &[("reason", "all of it is old")]).await;
    assert!(shown_after(&mut oscar, &done).await.contains("49 thrown away."));
    assert_eq!(scene.desk().get("/admin/dlq").await.unwrap()["items"], json!([]));
    for (action, reasons) in
        [("dlq.purge", &["all of it is old", "nobody can read them"][..]), ("dlq.redrive", &["the reader is mended"])]
    {
        let lines = scene.audited(action).await;
        let told: Vec<&Value> = lines.iter().map(|line| &line["reason"]).collect();
        assert_eq!(told, reasons, "one line an effect, none for who found nothing: {lines:?}");
    }
}

const FAILURES: &str = "/console/failures";

/// Sets switches by the form, and looks whether it says so afterwards.
async fn switch(oscar: &mut Visitor, filled: &[(&str, &str)]) {
    let filled: Vec<(&str, &str)> = [("reason", "a lesson")]
        .into_iter()
        .filter(|why| filled.iter().all(|(name, _)| *name != why.0))
        .chain(filled.iter().copied())
        .collect();
    let answer = oscar.submit(FAILURES, FAILURES, &filled).await;
    let page = shown_after(oscar, &answer).await;
    assert!(page.contains("The switches are set."), "{page}");
    let form = Form::in_page(&page, FAILURES);
    for (name, value) in filled.iter().filter(|(name, _)| !["reason", "off"].contains(name)) {
        assert!(form.value(name) == *value || form.ticked(name, value), "{name}={value}: {form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_switched_on_by_the_form_seen_and_switched_off() {
    let scene = Scene::stocked().await;
    let mut oscar = scene.operator(OSCAR).await;
    let off = [("off", "yes"), ("reason", "the lesson is over")];
    let buy = async || scene.mary.buy(&[(scene.cup, 1)]).await;
    let history = async |id: u64| {
        let saga = scene.desk().get(&format!("/admin/sagas/{id}")).await.ok()?;
        Some(saga["text"].as_str()?.to_owned())
    };
    let three_times = async |id: u64, what: &str| {
        eventually(&format!("{what}: three times"), || async {
            (history(id).await?.matches(what).count() >= 3).then_some(())
        })
        .await
    };

    // Nobody knows whether it was charged: a human is told, and tries again.
    switch(&mut oscar, &[("unknown.create-payment", "100")]).await;
    let unknown = buy().await;
    comes_to(&scene.desk(), unknown, "STUCK").await;
    switch(&mut oscar, &off).await;
    let shown = Form::in_page(&text(&oscar.get(FAILURES).await), FAILURES);
    assert_eq!(shown.value("unknown.create-payment"), "0", "off is off: {shown:?}");
    let form = oscar.asked(unknown, "retry").await;
    told(&mut oscar, &form, "it is healed").await;
    assert_eq!(scene.mary.ended(unknown).await["status"], "COMPLETED");

    // Not now, again and again.
    switch(&mut oscar, &[("retry.update-product-inventory", "100")]).await;
    let delayed = buy().await;
    three_times(delayed, "a failure on purpose").await;
    switch(&mut oscar, &off).await;
    assert_eq!(scene.mary.ended(delayed).await["status"], "COMPLETED");

    // Done, and nobody hears of it.
    switch(&mut oscar, &[("lost.create-order", "100")]).await;
    let lost = buy().await;
    three_times(lost, "the answer was lost").await;
    assert_eq!(scene.mary.get(&format!("/api/v1/orders/{lost}")).await.status, StatusCode::OK);
    switch(&mut oscar, &off).await;
    assert_eq!(scene.mary.ended(lost).await["status"], "COMPLETED");

    // Nobody is there.
    switch(&mut oscar, &[("stopped", "order")]).await;
    let waiting = buy().await;
    eventually("it waits for the order", || async {
        let listed = scene.desk().get(&format!("/admin/sagas?q={waiting}&step=create-order")).await.unwrap();
        (listed["items"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    assert_eq!(scene.mary.get(&format!("/api/v1/orders/{waiting}")).await.status, StatusCode::NOT_FOUND);
    switch(&mut oscar, &off).await;
    assert_eq!(scene.mary.ended(waiting).await["status"], "COMPLETED");
    assert_eq!(scene.town.inventory(scene.cup).await, 996, "each of the four was done once");
    scene.town.books(4, 0).await;

    let lines = scene.audited("failures.set").await;
    assert_eq!(lines.len(), 8, "each press is a line: {lines:?}");
}

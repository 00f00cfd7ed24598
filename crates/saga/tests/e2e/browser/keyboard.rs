//! Without a mouse: whatever is done is reached by Tab and pressed by Enter or the space bar, and what has the focus is seen
//! to have it.

use serde_json::{Value, json};

use super::driver::{Browser, ENTER, ESCAPE, TAB};
use super::{PASSWORD, content, log_in};
use crate::console::scene::{OSCAR, Scene};
use crate::town::{Town, comes_to};

/// More than any page has before what one looks for.
const MOST: usize = 60;

/// Goes on with Tab to what is called `name`; what was passed on the way. It is an error if anything has the focus without
/// showing it.
async fn walk(browser: &Browser, name: &str) -> Vec<String> {
    browser.until("document.readyState === 'complete'").await;
    let mut way = Vec::new();
    for _ in 0..MOST {
        browser.keys(TAB).await;
        let focus = "const e = document.activeElement, s = getComputedStyle(e), box = e.getBoundingClientRect();
            return [(e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.id).trim(),
                s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 && box.width > 0 && box.right > 0]";
        let focus = browser.run(focus).await;
        assert_eq!(focus[1], true, "what has the focus does not show it: {focus} after {way:?}");
        way.push(focus[0].as_str().unwrap_or_default().to_owned());
        if focus[0] == name {
            return way;
        }
    }
    panic!("{name} cannot be reached: {way:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_keyboard_alone_something_is_bought_once_however_often_it_is_pressed() {
    let town = Town::open().await;
    town.product(1_390, 10).await;
    let browser = Browser::open().await;
    let base = town.home().public();
    log_in(&browser, &base, "/shop", "admin@example.com").await;
    browser.until("document.querySelector('[aria-label=\"Buy Cup\"]')").await;
    let way = walk(&browser, "Buy Cup").await;
    assert!(way[0].contains("Skip"), "{way:?}");
    browser.keys(&format!("{ENTER}{ENTER}{ENTER}")).await;
    browser.until("document.querySelector('#status')?.innerText === 'completed'").await;
    content(&browser).await;
    drop(browser);
    let bought = town.admin.get("/api/v1/purchases").await;
    let bought: Value = serde_json::from_slice(&bought.body).unwrap();
    assert_eq!(bought["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_keyboard_alone_an_operator_finds_a_stuck_saga_and_has_it_tried_again() {
    let scene = Scene::stocked().await;
    let stuck = scene.stuck(1).await[0];
    // A stuck saga that is asked about again and finds the gateway back goes on by itself: not while somebody looks for it here.
    scene.fail(&json!({ "steps": { "create-payment": { "unknown_rate": 1.0 } } })).await;
    let browser = Browser::open().await;
    browser.go(&format!("{}/console", scene.town.home().admin())).await;
    browser.until("document.activeElement.id === 'email'").await;
    browser.keys(&format!("{OSCAR}{TAB}{PASSWORD}{ENTER}")).await;
    browser.until("location.pathname === '/console/overview'").await;
    // The first is the way past the navigation.
    assert_eq!(walk(&browser, "Skip to the content").await.len(), 1);
    browser.keys(ENTER).await;
    browser.until("document.activeElement.id === 'main'").await;
    browser.go(&format!("{}/console/overview", scene.town.home().admin())).await;
    walk(&browser, "Sagas").await;
    browser.keys(ENTER).await;
    browser.until("location.pathname === '/console/sagas'").await;
    walk(&browser, "State").await;
    browser.keys("stu").await;
    walk(&browser, "Show").await;
    browser.keys(ENTER).await;
    browser.until("location.search.includes('state=STUCK')").await;
    walk(&browser, &stuck.to_string()).await;
    browser.keys(ENTER).await;
    browser.until("document.querySelector('#status')?.innerText === 'stuck'").await;

    // A question, thought better of: the focus is back where it was.
    walk(&browser, "Cancel").await;
    browser.keys(" ").await;
    browser.until("document.querySelector('dialog').open && document.activeElement.id === 'reason'").await;
    browser.keys(ESCAPE).await;
    browser.until("!document.querySelector('dialog').open && document.activeElement.id === 'do-cancel'").await;
    // And one that is meant.
    browser.go(&format!("{}/console/sagas/{stuck}", scene.town.home().admin())).await;
    walk(&browser, "Retry now").await;
    browser.keys(ENTER).await;
    browser.until("document.querySelector('dialog').open && document.activeElement.id === 'reason'").await;
    browser.keys("the gateway is back").await;
    walk(&browser, "Retry now").await;
    // As late as can be: a late answer could be faster than the key.
    scene.fail(&json!({})).await;
    browser.keys(ENTER).await;
    browser.shows("The saga is being tried again.").await;
    browser.until("document.querySelector('#status')?.innerText === 'completed'").await;
    browser.shows("the gateway is back").await;
    content(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_the_focus_keeps_it_while_the_page_moves() {
    let scene = Scene::stocked().await;
    scene.fail(&json!({ "stopped": ["product", "order"] })).await;
    let id = scene.mary.buy(&[(scene.cup, 1)]).await;
    comes_to(&scene.desk(), id, "RUNNING").await;
    let browser = Browser::open().await;
    let admin = scene.town.home().admin();
    log_in(&browser, &admin, "/console", OSCAR).await;
    browser.go(&format!("{admin}/console/sagas/{id}")).await;
    walk(&browser, "Cancel").await;
    browser.run("document.activeElement.dataset.old = 'yes'").await;
    scene.fail(&json!({ "stopped": ["order"] })).await;
    // The button is another one, in the same place.
    browser.until("document.querySelector('#do-cancel').dataset.old === undefined").await;
    browser.until("document.body.innerText.includes('waits for do create-order')").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "do-cancel");
    content(&browser).await;
}

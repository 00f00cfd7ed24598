//! The pages in a real browser: what a person does with mouse and keyboard, and what they see.

mod driver;
mod keyboard;
pub mod letters;

use driver::Browser;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::console::hostile::{EVE, EVIL, Stage};
use crate::console::neighbour::Neighbour;
use crate::console::visitor::escaped;
use crate::operators;
use crate::town::{Person, Town, eventually};

const PASSWORD: &str = "a long password";

async fn log_in(browser: &Browser, base: &str, path: &str, email: &str) {
    browser.go(&format!("{base}{path}/login")).await;
    browser.fill("#email", email).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main form button").await;
    browser.until(&format!("!location.pathname.endsWith('/login') && location.pathname.startsWith('{path}')")).await;
}

/// Nothing was refused by the policy, no script failed, nothing was missing.
async fn content(browser: &Browser) {
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// `(text, contrast, wanted)` of every text whose contrast is below what WCAG 2.2 AA wants, by the styles that the browser
/// computed.
const CONTRAST: &str = r#"
  const parse = (css) => { const n = (css.match(/[\d.]+/g) || []).map(Number); return { r: n[0], g: n[1], b: n[2], a: n[3] ?? 1 }; };
  const over = (top, under) => ({ r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a), b: top.b * top.a + under.b * (1 - top.a), a: 1 });
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = (c) => 0.2126 * channel(c.r) + 0.7152 * channel(c.g) + 0.0722 * channel(c.b);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, layer) => layer.a ? over(layer, under) : under, { r: 255, g: 255, b: 255, a: 1 });
  };
  const inSvg = (text) => {
    const box = text.parentElement.querySelector(':scope > rect.box');
    return box && box !== text ? parse(getComputedStyle(box).fill) : behind(text.closest('svg').parentElement);
  };
  const found = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.nodeValue.trim();
    if (!text || !element.checkVisibility({ visibilityProperty: true }) || ['SCRIPT', 'STYLE', 'title', 'OPTION'].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const isSvg = element instanceof SVGElement;
    const background = isSvg ? inSvg(element) : behind(element);
    const colour = over(parse(isSvg ? style.fill : style.color), background);
    const [a, b] = [light(colour), light(background)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const wanted = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    looked += 1;
    if (contrast < wanted) found.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)} of ${wanted}`);
  }
  // What has to be seen beside the words: where a field is, where an arrow leads.
  for (const element of document.querySelectorAll('input:not([type=hidden], [type=checkbox]), select, textarea, svg .arrow')) {
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const line = parse(element instanceof SVGElement ? style.stroke : style.borderTopColor);
    const background = behind((element.closest('svg') ?? element).parentElement);
    const [a, b] = [light(over(line, background)), light(background)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    looked += 1;
    if (contrast < 3) found.push(`the line of ${element.id || element.className.baseVal || element.name}: ${contrast.toFixed(2)} of 3`);
  }
  return { looked, found };
"#;

/// What a page has to be for everybody: legible in both schemes, no wider than a phone, named things only.
async fn usable(browser: &Browser, url: &str) {
    for scheme in ["light", "dark"] {
        browser.screen(1280, 900, scheme).await;
        browser.go(url).await;
        let told = browser.run(CONTRAST).await;
        assert!(told["looked"].as_u64() > Some(5), "{url}: {told}");
        assert_eq!(told["found"], json!([]), "{url}, {scheme}");
    }
    browser.screen(390, 844, "light").await;
    browser.go(url).await;
    let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]").await;
    assert!(wide[0].as_u64() <= wide[1].as_u64(), "{url} is wider than a phone: {wide}");
    let nameless = "return [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a, svg[role=img]')]
        .filter((e) => !(e.labels?.length || e.ariaLabel || e.innerText?.trim() || e.getAttribute('aria-label') || e.querySelector('img[alt]')))
        .map((e) => e.outerHTML.slice(0, 120))";
    assert_eq!(browser.run(nameless).await, json!([]), "{url}: what has no name for a screen reader");
    browser.screen(1280, 900, "light").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_registers_fills_the_shelves_buys_and_watches_it_complete_and_be_taken_back() {
    let town = Town::open().await;
    let browser = Browser::open().await;
    let base = town.home().public();
    browser.go(&base).await;
    browser.shows("The shelves are empty").await;
    // Somebody new, by the form.
    browser.click("a[href='/shop/register']").await;
    for (field, text) in [
        ("email", "joe@example.com"),
        ("password", PASSWORD),
        ("first_name", "Joe"),
        ("last_name", "Stone"),
        ("address", "12 Lake Road"),
        ("phone_number", "1234567"),
    ] {
        browser.fill(&format!("#{field}"), text).await;
    }
    browser.click("main form button").await;
    browser.shows("Good to see you, Joe").await;
    assert!(!browser.text().await.contains("Put some goods"), "a customer does not fill shelves");
    browser.click(".who button").await;
    browser.shows("Log in").await;
    log_in(&browser, &base, "/shop", "admin@example.com").await;
    browser.click("form[action='/shop/samples'] button").await;
    browser.shows("Old teapot").await;

    browser.click("[aria-label='Buy Cup']").await;
    browser.until("document.querySelector('#status')?.innerText === 'completed'").await;
    let all_done = "[...document.querySelectorAll('.steps > li')].every((step) => step.innerText.includes('done'))";
    browser.until(all_done).await;

    browser.go(&format!("{base}/shop")).await;
    browser.click("[aria-label='Buy Spoon']").await;
    // On the way it can be seen going back.
    browser.until("document.querySelector('#status')?.innerText === 'compensating'").await;
    browser.until("document.querySelector('#status')?.innerText === 'compensated'").await;
    browser.shows("amounts that end in 13").await;
    let undone = "[...document.querySelectorAll('.steps .badge.undone')].length === 2";
    browser.until(undone).await;

    browser.go(&format!("{base}/shop")).await;
    browser.click("[aria-label^='Buy 3 of Old teapot']").await;
    browser.until("document.querySelector('#status')?.innerText === 'compensated'").await;
    browser.shows("insufficient_stock").await;
    // A basket of two things.
    browser.go(&format!("{base}/shop")).await;
    browser.click("[aria-label='Put Pot into the basket']").await;
    // Leaving while the form is on its way would be a race.
    browser.until("location.pathname === '/shop/basket'").await;
    browser.go(&format!("{base}/shop")).await;
    browser.click("[aria-label='Put Tray into the basket']").await;
    browser.shows("12\u{202f}680 VND").await;
    browser.click("form[action='/shop/buy'] button").await;
    browser.until("document.querySelector('#status')?.innerText === 'completed'").await;
    content(&browser).await;
    drop(browser);
    town.books(2, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_is_found_in_the_console_and_retried_with_a_reason() {
    let folder = TempDir::new().unwrap();
    let (process, mary, bought) = operators::stuck(folder.path(), 1).await;
    let id = bought[0];
    let browser = Browser::open().await;
    let admin = process.run.admin.clone();
    log_in(&browser, &admin, "/console", "mary@example.com").await;
    browser.go(&format!("{admin}/console/sagas")).await;
    browser.run("document.querySelector('#state').value = 'STUCK'").await;
    browser.click("form[role=search] button").await;
    browser.until("location.search.includes('state=STUCK')").await;
    browser.click(&format!("a[href='/console/sagas/{id}']")).await;
    browser.shows("create-payment").await;
    browser.until("document.querySelector('#status')?.innerText === 'stuck'").await;
    browser.click("#do-retry").await;
    browser.until("document.querySelector('dialog').open").await;
    browser.until("document.activeElement.id === 'reason'").await;
    // Without a reason nothing happens.
    browser.click("dialog form button").await;
    assert!(browser.run("return document.querySelector('dialog').open").await.as_bool().unwrap());
    browser.fill("dialog #reason", "the gateway is back, I hope").await;
    browser.click("dialog form button").await;
    browser.shows("The saga is being tried again.").await;
    browser.shows("the gateway is back, I hope").await;
    // Nobody answers: it is seen to be stuck again, without being asked.
    browser.until("document.querySelector('#status')?.innerText === 'stuck'").await;
    // And taken back, because cancelling is possible before the pivot is done.
    browser.click("#do-cancel").await;
    browser.until("document.querySelector('dialog').open").await;
    browser.fill("dialog #reason", "the customer rang").await;
    browser.click("dialog form button").await;
    browser.until("document.querySelector('#status')?.innerText === 'compensated'").await;
    content(&browser).await;
    drop(browser);
    assert_eq!(mary.ended(id).await["reason"]["code"], "cancelled");
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_stored_as_a_script_stays_text_on_every_page() {
    let Stage { scene, pages, .. } = Stage::set().await;
    let browser = Browser::open().await;
    let (public, admin) = (scene.town.home().public(), scene.town.home().admin());
    log_in(&browser, &public, "/shop", EVE).await;
    log_in(&browser, &admin, "/console", "admin@example.com").await;
    let reflected = ["/shop?q=", "/console/sagas?step=", "/console/audit?actor=", "/console/topics/reply?key="];
    let reflected = reflected.map(|page| (format!("{page}{}", escaped(EVIL)), 1));
    for (page, least) in pages.iter().chain(&reflected) {
        let base = if page.starts_with("/shop") { &public } else { &admin };
        browser.go(&format!("{base}{page}")).await;
        assert_ne!(browser.run("return document.title").await, "owned", "{page}");
        let scripts = "return document.querySelectorAll('img[src=x], script:not([src])').length";
        assert_eq!(browser.run(scripts).await, 0, "{page}");
        // What a purchase or a saga says comes live, too, and into the same page.
        if *least > 0 && !page.contains("topics") && !page.contains("basket") {
            browser.until("document.documentElement.outerHTML.includes('evil9')").await;
        }
    }
    browser.go(&format!("{public}/shop")).await;
    browser.shows(EVIL).await;
    content(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_on_another_site_changes_nothing() {
    let town = Town::open().await;
    let cup = town.product(10, 10).await;
    let browser = Browser::open().await;
    let public = town.home().public();
    log_in(&browser, &public, "/shop", "admin@example.com").await;
    browser.shows("Cup").await;
    let token = browser.run("return document.querySelector('input[name=token]').value").await;
    // Another name for this machine is another site; it knows even the token.
    let elsewhere = public.replace("127.0.0.1", "localhost");
    browser.go(&format!("{elsewhere}/livez")).await;
    let script = format!(
        "const form = document.createElement('form'); form.method = 'post'; form.action = '{public}/shop/buy';
         for (const [name, value] of Object.entries({{ token: {token}, key: 'k', product_id: '{cup}', quantity: '1', currency: 'VND' }})) {{
           const input = document.createElement('input'); input.name = name; input.value = value; form.append(input); }}
         document.body.append(form); form.submit()"
    );
    browser.run(&script).await;
    browser.shows("nothing was done").await;
    let bought = town.admin.get("/api/v1/purchases").await;
    let bought: Value = serde_json::from_slice(&bought.body).unwrap();
    assert_eq!(bought["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_legible_in_both_schemes_and_fits_a_phone() {
    let folder = TempDir::new().unwrap();
    letters::prepared(folder.path(), &[("it is odd", r#"[["saga_id","7"]]"#)]).await;
    let left = json!({ "retry_rate": 0.5, "op": "undo" });
    let neighbour = Neighbour::open(json!({ "decline_rate": 0.25, "latency_ms": 0 }), left, true).await;
    let failures = format!("[failures]\nenabled = true\nelsewhere = [{:?}, 'http://127.0.0.1:1']", neighbour.url);
    let (process, mary, bought) = operators::stuck_with(folder.path(), 2, &failures).await;
    cancel(&mary, bought[1]).await;
    let browser = Browser::open().await;
    let (public, admin) = (process.run.public.clone(), process.run.admin.clone());
    usable(&browser, &format!("{public}/shop/login")).await;
    usable(&browser, &format!("{public}/shop/register")).await;
    log_in(&browser, &public, "/shop", "mary@example.com").await;
    log_in(&browser, &admin, "/console", "mary@example.com").await;
    for page in ["/shop", "/shop/basket", "/shop/purchases"] {
        usable(&browser, &format!("{public}{page}")).await;
    }
    for purchase in &bought {
        usable(&browser, &format!("{public}/shop/purchases/{purchase}")).await;
        usable(&browser, &format!("{admin}/console/sagas/{purchase}")).await;
    }
    for page in CONSOLE {
        usable(&browser, &format!("{admin}/console{page}")).await;
        // Not only that there is nothing.
        for (_, words) in FULL.iter().filter(|(full, _)| *full == page) {
            browser.shows(words).await;
        }
    }
    browser.go(&format!("{admin}/console/letters/reply")).await;
    let letter = browser.run("return document.querySelector('td a').href").await;
    for (page, words) in
        [(letter.as_str().unwrap(), "at all"), (&format!("{admin}/console/letters/reply/do/purge"), "Reason")]
    {
        usable(&browser, page).await;
        browser.shows(words).await;
    }
    // The one that is not there is complained about, and nothing else.
    let missing = browser.complaints().await;
    assert!(missing.iter().all(|line| line.contains("/nothing") && line.contains("404")), "{missing:?}");
    usable(&browser, &format!("{admin}/console/sagas/{}/retry", bought[0])).await;
    content(&browser).await;
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_moves_by_itself_and_lets_go_when_nobody_looks() {
    let town = Town::open().await;
    let cup = town.product(1_390, 10_000).await;
    let browser = Browser::open().await;
    let admin = town.home().admin();
    log_in(&browser, &admin, "/console", "admin@example.com").await;
    browser.until("location.pathname === '/console/overview'").await;
    browser.until("document.querySelector('#link').innerText === 'live'").await;
    browser.until("document.querySelectorAll('.chart canvas').length === 3").await;
    browser.shows("product").await;
    for _ in 0..20 {
        town.admin.buy(&[(cup, 1)]).await;
    }
    let rate = "[...document.querySelectorAll('.tiles a')].some((tile) => tile.innerText.includes('completed') && parseFloat(tile.innerText) > 0)";
    browser.until(rate).await;
    content(&browser).await;
    // What the page held is let go of with it: by the browser, the console, and those whom it asked.
    let watched = async |count: u32| {
        let line = format!("\nsaga_overview_streams {count}.0\n");
        let page = Person { endpoint: town.admin_endpoint(), ..town.nobody() }.get("/metrics").await;
        String::from_utf8_lossy(&page.body).contains(&line).then_some(())
    };
    eventually("it is looked at", || watched(1)).await;
    browser.go(&format!("{admin}/console/definitions")).await;
    eventually("nobody looks", || watched(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_stuck_sagas_are_shown_counted_and_steered_at_once_and_it_is_in_the_audit_log() {
    let folder = TempDir::new().unwrap();
    let (process, mary, bought) = operators::stuck(folder.path(), 3).await;
    let browser = Browser::open().await;
    let admin = process.run.admin.clone();
    log_in(&browser, &admin, "/console", "mary@example.com").await;
    browser.go(&format!("{admin}/console/sagas?state=STUCK")).await;
    browser.until("document.querySelector('.counts').innerText.includes('3')").await;
    browser.click("a[href^='/console/sagas/bulk']").await;
    browser.run("document.querySelector('#verb').value = 'cancel'").await;
    browser.fill("#reason", "the gateway is gone for good").await;
    browser.click("main form button").await;
    browser.shows("It would be 3 sagas").await;
    for id in &bought {
        browser.shows(&id.to_string()).await;
    }
    browser.click("#do-it").await;
    browser.shows("Done, to 3.").await;
    for id in bought {
        assert_eq!(mary.ended(id).await["reason"]["code"], "cancelled");
    }
    browser.go(&format!("{admin}/console/audit?action=sagas.bulk")).await;
    browser.shows("the gateway is gone for good").await;
    content(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_switched_on_seen_and_switched_off() {
    let town = Town::open_with(|config| config.failures.enabled = true).await;
    let cup = town.product(1_390, 100).await;
    let browser = Browser::open().await;
    let admin = town.home().admin();
    log_in(&browser, &admin, "/console", "admin@example.com").await;
    browser.go(&format!("{admin}/console/failures")).await;
    browser.fill("#decline", "100").await;
    browser.fill("#reason", "a lesson").await;
    browser.click("main form button.primary").await;
    browser.shows("The switches are set.").await;
    let declined = town.admin.buy(&[(cup, 1)]).await;
    assert_eq!(town.admin.ended(declined).await["status"], "COMPENSATED");
    browser.fill("#reason", "the lesson is over").await;
    browser.click("button[name=off]").await;
    browser.until("document.querySelector('#decline').value === '0'").await;
    let bought = town.admin.buy(&[(cup, 1)]).await;
    assert_eq!(town.admin.ended(bought).await["status"], "COMPLETED");
    content(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_ends_with_all_its_processes_when_its_test_panics() {
    let browser = Browser::open().await;
    let group = browser.group();
    assert!(Browser::processes(group) > 3, "the shell, the driver, Chromium and its parts");
    let test = tokio::spawn(async move {
        browser.go("about:blank").await;
        panic!("on purpose: as a test that fails");
    });
    assert!(test.await.unwrap_err().is_panic());
    eventually("nothing of it is left", || async { (Browser::processes(group) == 0).then_some(()) }).await;
}

/// Every page that needs no more than an address.
const CONSOLE: [&str; 12] = [
    "/overview",
    "/sagas",
    "/sagas/bulk?state=STUCK",
    "/letters",
    "/letters/reply",
    "/topics",
    "/topics/reply",
    "/participants",
    "/definitions",
    "/audit",
    "/failures",
    "/nothing",
];

/// What some of them show in the shop of the test that looks at all.
const FULL: [(&str, &str); 6] = [
    ("/letters", "reply"),
    ("/letters/reply", "it is odd"),
    ("/failures", "Steps that answer something else"),
    ("/failures", "Process by process"),
    ("/failures", "Processes differ"),
    ("/failures", "Not reached"),
];

async fn cancel(mary: &Person, purchase: u64) {
    let answer = mary.post(&format!("/api/v1/purchases/{purchase}/cancel"), &json!({})).await;
    assert_eq!(answer.status, 202);
    mary.ended(purchase).await;
}

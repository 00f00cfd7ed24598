//! What there is at `/console` and `/shop`, read from where it is routed: a page or a form that is added is in these lists
//! before anybody has thought of it, and the tests over them fail until somebody does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::visitor::Form;

/// An address with its methods.
#[derive(Clone, Debug)]
pub struct Route {
    /// With `{names}`.
    pub path: String,
    pub gets: bool,
    pub posts: bool,
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../console")
}

fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The routes that a file makes, below `base`.
fn routed(base: &str, text: &str) -> Vec<Route> {
    let route = |rest: &str| {
        let (path, rest) = rest.split_once('"').unwrap();
        // Up to the next one, or the end of the statement.
        let methods = rest.split(';').next().unwrap();
        for other in ["put(", "patch(", "delete(", "any(", "on("] {
            assert!(!methods.contains(other), "{base}{path}: these tests know get and post, not {other}");
        }
        let path = format!("{base}{}", if path == "/" { "" } else { path });
        Route { path, gets: methods.contains("get("), posts: methods.contains("post(") }
    };
    text.split(".route(\"").skip(1).map(route).collect()
}

/// Every route of both sets of pages.
pub fn all() -> Vec<Route> {
    let mut found = Vec::new();
    for (path, text) in files(&source().join("src"), "rs") {
        match path.strip_prefix(source().join("src")).unwrap().to_str().unwrap() {
            "operators.rs" => found.extend(routed("/console", &text)),
            "shop.rs" => found.extend(routed("/shop", &text)),
            // The files that pages load, and the way from `/` to them.
            "lib.rs" => {
                let other: Vec<String> = routed("", &text).into_iter().map(|route| route.path).collect();
                assert_eq!(other, ["/assets/{hash}/{name}", ""], "a route that these tests do not know");
                assert_eq!(text.matches(".merge(").count(), 0, "routes that these tests do not know");
            }
            other => assert!(!text.contains(".route("), "{other} has routes that these tests do not know"),
        }
    }
    assert!(found.iter().all(|route| route.gets || route.posts), "{found:?}");
    assert!(found.len() > 30, "{found:?}");
    found
}

/// The addresses that forms are sent to.
pub fn posts() -> BTreeSet<String> {
    all().into_iter().filter(|route| route.posts).map(|route| route.path).collect()
}

#[test]
fn every_form_in_a_template_carries_the_token_and_goes_where_a_route_is() {
    let places = posts();
    let mut forms = 0;
    for (path, text) in files(&source().join("templates"), "html") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!["hx-post", "hx-put", "hx-delete", "hx-patch"].iter().any(|sends| text.contains(sends)), "{name}");
        for form in Form::all(&text) {
            forms += 1;
            assert!(["{{ page.token }}", "{{ token }}"].contains(&form.value("token")), "{name}: {form:?}");
            // `confirm_form.html` is for several; who uses it says where it goes.
            if form.action == "{{ action }}" {
                continue;
            }
            let action = form.action.replace("{{ page.base }}", "/shop").replace("{{ id }}", "{id}");
            assert!(places.contains(&action), "{name} sends to {action}");
        }
        let elsewhere = text.split("formaction=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        elsewhere.for_each(|action| assert!(places.contains(action), "{name} sends to {action}"));
    }
    assert!(forms >= 12, "{forms}");
}

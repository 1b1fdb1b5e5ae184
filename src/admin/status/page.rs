//! The status page: as a whole, and its parts for pages that are open. Everything in it is escaped by the templates.

use askama::Template;
use bytes::Bytes;

use super::{
    plot::Plot,
    rows::Status,
    texts::{ENGLISH, Texts},
};

/// A part of the page that changes: the id of its element, and what is in it.
pub(super) type Part = (&'static str, Bytes);

/// Makes a template of a file, which sees the status, the plots and the words.
macro_rules! template {
    ($name:ident, $path:literal) => {
        #[derive(Template)]
        #[template(path = $path)]
        struct $name<'p> {
            #[allow(dead_code, reason = "not every part shows it")]
            s: &'p Status,
            #[allow(dead_code, reason = "not every part shows it")]
            plots: &'p [Plot],
            #[allow(dead_code, reason = "not every part shows it")]
            t: &'static Texts,
        }
    };
}

template!(Page, "status.html");
template!(Now, "status/now.html");
template!(Troubles, "status/troubles.html");
template!(Traffic, "status/traffic.html");
template!(Plots, "status/plots.html");
template!(Refusals, "status/refusals.html");
template!(Decisions, "status/decisions.html");
template!(Limits, "status/limits.html");
template!(Upstreams, "status/upstreams.html");
template!(Routes, "status/routes.html");
template!(Keys, "status/keys.html");
template!(Certificates, "status/certificates.html");
template!(Node, "status/node.html");

/// The whole page; `None` where a template fails, which for text alone it does not.
pub(super) fn whole(s: &Status, plots: &[Plot]) -> Option<String> {
    let t = &ENGLISH;
    Page { s, plots, t }.render().ok()
}

/// Its parts, by their ids in `templates/status.html`.
pub(super) fn parts(s: &Status, plots: &[Plot]) -> Vec<Part> {
    let t = &ENGLISH;
    macro_rules! parts {
        ($($id:literal: $name:ident),+ $(,)?) => {
            [$(($id, $name { s, plots, t }.render())),+]
        };
    }
    let parts = parts![
        "now": Now,
        "troubles": Troubles,
        "traffic": Traffic,
        "plots": Plots,
        "refusals": Refusals,
        "decisions": Decisions,
        "limits": Limits,
        "upstreams": Upstreams,
        "routes": Routes,
        "keys": Keys,
        "certificates": Certificates,
        "node": Node,
    ];
    let rendered = parts.into_iter();
    rendered
        .filter_map(|(id, html)| Some((id, Bytes::from(html.ok()?))))
        .collect()
}

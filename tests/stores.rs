//! Both stores keep the same promises: one suite, on SQLite and on a private PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a broken step fails its test"
)]

#[expect(dead_code, unused_imports, reason = "the other tests use the rest")]
#[path = "gateway/harness/mod.rs"]
mod harness;

#[path = "stores/administration.rs"]
mod administration;
#[path = "stores/cluster.rs"]
mod cluster;
#[path = "stores/faults.rs"]
mod faults;
#[path = "stores/halt.rs"]
mod halt;
#[path = "stores/keys.rs"]
mod keys;
#[path = "stores/kills.rs"]
mod kills;
#[path = "stores/mail.rs"]
mod mail;
#[path = "stores/node.rs"]
mod node;
#[path = "stores/nodes/mod.rs"]
mod nodes;
#[path = "stores/place.rs"]
mod place;
#[path = "stores/promises.rs"]
mod promises;
#[path = "stores/scale.rs"]
mod scale;
#[path = "stores/schema.rs"]
mod schema;
#[path = "stores/server.rs"]
mod server;
#[path = "stores/shared_keys.rs"]
mod shared_keys;
#[path = "stores/story.rs"]
mod story;
#[path = "stores/tls.rs"]
mod tls;

/// Runs each function on both kinds.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::place::Place::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(place) = crate::place::Place::postgres().await {
                    super::$name(place).await;
                }
            })+
        }
    };
}
pub(crate) use on_both;

//! A step of a transaction at which whoever runs it stands still, so that it can be killed there.
//!
//! A trigger of the test's own does it: in PostgreSQL it waits for a lock that the test holds, in SQLite it counts without an
//! end. The transaction is open meanwhile and holds what it holds.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::{harness::eventually, place::Place, server};

/// The lock that the triggers wait for.
const LOCK: &str = "7007";

/// Looks at the writers' lock of SQLite, one after the other, that must all find it held: the trigger alone holds it so long.
const LOOKS: u32 = 40;

/// A statement: what it does, and to which table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step(pub(crate) &'static str, pub(crate) &'static str);

/// A trigger that stands still right after a statement.
pub(crate) struct Halt {
    place: Arc<Place>,
    step: Step,
    /// Holds the lock that the trigger waits for.
    holder: Option<Client>,
}

impl Halt {
    pub(crate) async fn at(place: &Arc<Place>, step: Step) -> Self {
        let Step(event, table) = step;
        let holder = match &**place {
            Place::Postgres(url) => {
                let holder = server::connect(url).await;
                let lock = format!("SELECT pg_advisory_lock({LOCK})");
                holder.batch_execute(&lock).await.unwrap();
                place
                    .execute(&format!(
                        "CREATE OR REPLACE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS $$
                         BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$;
                         CREATE TRIGGER stand_still AFTER {event} ON {table}
                         FOR EACH ROW EXECUTE FUNCTION stand_still()"
                    ))
                    .await;
                Some(holder)
            }
            Place::Sqlite(_) => {
                place
                    .execute(&format!(
                        "CREATE VIEW IF NOT EXISTS for_ever AS
                         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT n FROM n;
                         CREATE TRIGGER stand_still AFTER {event} ON {table}
                         BEGIN SELECT count(*) FROM for_ever; END"
                    ))
                    .await;
                None
            }
        };
        Self {
            place: Arc::clone(place),
            step,
            holder,
        }
    }

    /// Waits until somebody stands there.
    pub(crate) async fn reached(&self) {
        let what = format!("{:?} to be reached", self.step);
        if self.holder.is_some() {
            let waits = format!(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK} AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            );
            eventually(&what, async || {
                (self.place.number(&waits).await > 0).then_some(())
            })
            .await;
            return;
        }
        let mut held = 0;
        eventually(&what, async || {
            held = if self.place.is_written_to() {
                held + 1
            } else {
                0
            };
            (held >= LOOKS).then_some(())
        })
        .await;
    }

    /// Takes the trigger away, once whoever stood there is dead and the store has noticed.
    pub(crate) async fn lift(self) {
        let Step(_, table) = self.step;
        if let Some(holder) = self.holder {
            let unlock = format!("SELECT pg_advisory_unlock({LOCK})");
            holder.batch_execute(&unlock).await.unwrap();
            let left = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = 'portcullis'";
            eventually("the server to see that its client is dead", async || {
                (self.place.number(left).await == 0).then_some(())
            })
            .await;
            let drop = format!("DROP TRIGGER stand_still ON {table}");
            self.place.execute(&drop).await;
        } else {
            self.place.execute("DROP TRIGGER stand_still").await;
        }
    }
}

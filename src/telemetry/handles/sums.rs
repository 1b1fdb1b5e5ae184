//! What the handles have counted, for whoever looks at all of them. Locks of the tables are let go before a handle is: the last
//! one takes its place out of the table.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, Weak},
};

use super::{ADMITTED, Connections, RouteMetrics, RouteTable, UpstreamMetrics, UpstreamTable};
use crate::telemetry::{
    histogram::Histogram,
    totals::{Durations, RouteTotals, Totals},
};

impl RouteTable {
    /// The routes that have had a request.
    pub(in crate::telemetry) fn in_use(&self) -> Vec<Arc<RouteMetrics>> {
        let mut routes: Vec<_> = {
            let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.values().filter_map(Weak::upgrade).collect()
        };
        routes.retain(|route| route.duration.get().is_some());
        routes
    }
}

impl RouteMetrics {
    /// The name, to be kept without the counters.
    pub(in crate::telemetry) fn name_shared(&self) -> &Arc<str> {
        &self.name
    }

    fn durations(&self) -> Durations {
        self.duration
            .get()
            .map(Histogram::counts)
            .unwrap_or_default()
    }

    pub(in crate::telemetry) fn totals(&self) -> RouteTotals {
        let made = self.made();
        let of = |admitted: bool| {
            let codes = made.decisions.iter();
            let codes = codes.filter(|(code, _)| (**code == ADMITTED) == admitted);
            codes.map(|(_, counter)| counter.get()).sum()
        };
        RouteTotals {
            admitted: of(true),
            refused: of(false),
            durations: self.durations(),
        }
    }

    pub(in crate::telemetry) fn add_to(&self, totals: &mut Totals) {
        totals.durations.add(&self.durations());
        let made = self.made();
        for (code, counter) in &made.decisions {
            *totals.codes.entry(code).or_default() += counter.get();
        }
        for ((_, status), counter) in &made.requests {
            if let Some(sum) = totals.classes.get_mut(status.class()) {
                *sum += counter.get();
            }
        }
    }
}

impl UpstreamTable {
    /// How long each upstream took to answer, by its name.
    pub(in crate::telemetry) fn totals(&self) -> HashMap<Arc<str>, Durations> {
        let servers: Vec<Arc<UpstreamMetrics>> = {
            let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.values().filter_map(Weak::upgrade).collect()
        };
        let servers = servers.iter();
        servers
            .map(|server| {
                (
                    Arc::clone(&server.labels.upstream),
                    server.duration.counts(),
                )
            })
            .collect()
    }
}

impl Connections {
    /// How many are open.
    pub(in crate::telemetry) fn count(&self) -> u64 {
        u64::try_from(self.0.get()).unwrap_or_default()
    }
}

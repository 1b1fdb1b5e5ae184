//! The metrics of what is read anew while the process runs: certificates and the configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{
    Scrape,
    labels::{CertificateLabel, ResultLabel},
    metrics::Seconds,
    results::{CertificateReload, ConfigReload},
};

#[derive(Debug, Default)]
pub(super) struct ReloadMetrics {
    certificate_expiry: Family<CertificateLabel, Gauge>,
    certificates: Family<ResultLabel, Counter>,
    configurations: Family<ResultLabel, Counter>,
    config_success: Gauge,
    config_success_at: Seconds,
}

impl ReloadMetrics {
    /// Every series is there from the start, so that the first one is growth.
    pub(super) fn register(&self, registry: &mut Registry) {
        for result in [CertificateReload::Refused, CertificateReload::Taken] {
            let _ = self.certificate(result);
        }
        for result in ConfigReload::ALL {
            let _ = self.configuration(result);
        }
        // A start is a load that went well.
        self.note_success(true);
        self.register_certificates(registry);
        self.register_configuration(registry);
    }

    fn register_certificates(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate in use ends, since 1970",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changed certificate files by outcome",
            self.certificates.clone(),
        );
    }

    fn register_configuration(&self, registry: &mut Registry) {
        registry.register(
            "config_reloads",
            "Attempts to load the configuration anew by outcome",
            self.configurations.clone(),
        );
        registry.register(
            "config_last_reload_success",
            "Whether what runs is what the file said when it was last read: 1 or 0",
            self.config_success.clone(),
        );
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When that was last so, since 1970",
            Unit::Seconds,
            self.config_success_at.clone(),
        );
    }

    /// The counter of changed certificate files of this outcome.
    pub(super) fn certificate(&self, result: CertificateReload) -> Counter {
        let result = result.name();
        self.certificates
            .get_or_create_owned(&ResultLabel { result })
    }

    /// Counts an attempt to load the configuration anew.
    pub(super) fn config_loaded(&self, result: ConfigReload) {
        self.configuration(result).inc();
        self.note_success(result.is_success());
    }

    fn configuration(&self, result: ConfigReload) -> Counter {
        let result = result.name();
        self.configurations
            .get_or_create_owned(&ResultLabel { result })
    }

    fn note_success(&self, is_success: bool) {
        self.config_success.set(i64::from(is_success));
        if is_success {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            self.config_success_at
                .set(since.unwrap_or_default().as_secs_f64());
        }
    }

    /// Certificates that are gone must not keep their last value.
    pub(super) fn begin_scrape(&self) {
        self.certificate_expiry.clear();
    }
}

impl Scrape<'_> {
    /// When a certificate ends. Of several by one name the first to end counts.
    pub fn certificate_expiry(&mut self, name: &str, ends: SystemTime) {
        let since = ends.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let ends = &self.metrics().reloads.certificate_expiry;
        let gauge = ends.get_or_create_owned(&CertificateLabel { name: name.into() });
        let before = gauge.get();
        if before == 0 || seconds < before {
            gauge.set(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::tests::{check_series, silent};

    #[test]
    fn cfg_2_reloads_are_counted_and_the_last_one_decides() {
        let telemetry = silent();
        let success = "portcullis_config_last_reload_success";
        check_series(&telemetry, success, Some("1"));
        for (result, name, want) in [
            (ConfigReload::Refused, "refused", "0"),
            (ConfigReload::Unchanged, "unchanged", "1"),
            (ConfigReload::RestartRequired, "restart_required", "0"),
            (ConfigReload::Taken, "taken", "1"),
        ] {
            let series = format!("portcullis_config_reloads_total{{result=\"{name}\"}}");
            check_series(&telemetry, &series, Some("0"));
            telemetry.config_reload(result);
            check_series(&telemetry, &series, Some("1"));
            check_series(&telemetry, success, Some(want));
        }
        let at = "portcullis_config_last_reload_success_timestamp_seconds ";
        assert!(telemetry.encode().contains(at));
    }

    #[test]
    fn net_9_refused_certificates_are_counted_from_0() {
        let telemetry = silent();
        telemetry.certificate_reload(CertificateReload::Taken);
        for (result, count) in [("taken", "1"), ("refused", "0")] {
            let series = format!("portcullis_certificate_reloads_total{{result=\"{result}\"}}");
            check_series(&telemetry, &series, Some(count));
        }
    }

    #[test]
    fn net_9_of_two_certificates_by_one_name_the_first_to_end_counts() {
        let telemetry = silent();
        let series = r#"portcullis_certificate_expiry_timestamp_seconds{name="a.test"}"#;
        let ends = |seconds: &'static [u64]| {
            let sampler: Box<dyn Fn(&mut Scrape<'_>) + Send + Sync> = Box::new(move |scrape| {
                for seconds in seconds {
                    let ends = UNIX_EPOCH + Duration::from_secs(*seconds);
                    scrape.certificate_expiry("a.test", ends);
                }
            });
            telemetry.on_scrape("tls", sampler);
        };
        for (seconds, want) in [
            (&[1_800_000_000][..], Some("1800000000")),
            (
                &[1_900_000_000, 1_700_000_000, 1_800_000_000],
                Some("1700000000"),
            ),
            // A new one takes the place of one that ended earlier.
            (&[1_900_000_000], Some("1900000000")),
            (&[], None),
        ] {
            ends(seconds);
            check_series(&telemetry, series, want);
        }
    }
}

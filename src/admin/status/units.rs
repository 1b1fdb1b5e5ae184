//! Numbers with their units: for programs a number, for people a few characters.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Between the thousands of a number: a narrow space that does not break.
const THOUSANDS: char = '\u{202f}';
/// What is shown of what is not known.
const UNKNOWN: &str = "–";

/// A name, shared with whoever has it.
#[derive(Debug, Clone)]
pub(super) struct Name(pub(super) Arc<str>);

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(super) struct Count(pub(super) u64);

/// How many in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rate(pub(super) f64);

/// Milliseconds; `None` where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Millis(pub(super) Option<Duration>);

/// A part of a whole; `None` where there was none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Share(pub(super) Option<f64>);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Bytes(pub(super) u64);

/// Seconds of a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Span(pub(super) u64);

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Moment(pub(super) u64);

/// A count as a float; those beyond four thousand millions, which no second and no minute has, as that.
pub(super) fn float(number: u64) -> f64 {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    f64::from(number)
}

impl Rate {
    /// So many within this while.
    pub(super) fn of(count: u64, within: Duration) -> Self {
        let seconds = within.as_secs_f64();
        Self(if seconds > 0.0 {
            float(count) / seconds
        } else {
            0.0
        })
    }
}

impl Share {
    pub(super) fn of(part: u64, whole: u64) -> Self {
        Self((whole > 0).then(|| float(part) / float(whole)))
    }
}

impl Moment {
    /// As machines write it (RFC 3339).
    pub(super) fn machine(self) -> String {
        self.stamp().to_string()
    }

    /// The time of the day, in UTC.
    pub(super) fn clock(self) -> String {
        self.stamp().strftime("%H:%M:%S").to_string()
    }

    fn stamp(self) -> Timestamp {
        let seconds = i64::try_from(self.0).ok();
        let stamp = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        stamp.unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                write!(f, "{THOUSANDS}")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate < 0.05 => f.write_str("0"),
            rate if rate < 9.95 => write!(f, "{rate:.1}"),
            rate => {
                // Below some 10^19, which no counter reaches within a second.
                let whole = format!("{rate:.0}").parse().unwrap_or(u64::MAX);
                Count(whole).fmt(f)
            }
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(duration) = self.0 else {
            return f.write_str(UNKNOWN);
        };
        match duration.as_secs_f64() * 1000.0 {
            ms if ms < 9.95 => write!(f, "{ms:.1} ms"),
            ms if ms < 999.5 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{:.1} s", ms / 1000.0),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str(UNKNOWN),
            Some(share) => write!(f, "{:.1} %", share * 100.0),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 / (1 << 20);
        match mebibytes {
            0 => write!(f, "{} KiB", self.0 / (1 << 10)),
            1..10_240 => write!(f, "{mebibytes} MiB"),
            _ => write!(f, "{} GiB", mebibytes / 1024),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes) = (self.0 / 86_400, self.0 / 3600 % 24, self.0 / 60 % 60);
        match self.0 {
            seconds @ 0..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{minutes} min"),
            3600..86_400 => write!(f, "{hours} h {minutes} min"),
            86_400..864_000 => write!(f, "{days} d {hours} h"),
            _ => write!(f, "{days} d"),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stamp().strftime("%Y-%m-%d %H:%M UTC"))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64((self.0 * 1000.0).round() / 1000.0)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let micros = |duration: Duration| (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0;
        self.0.map(micros).serialize(to)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let rounded = |share: f64| (share * 10_000.0).round() / 10_000.0;
        self.0.map(rounded).serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shown: impl fmt::Display, want: &str) {
        assert_eq!(shown.to_string(), want);
    }

    #[test]
    fn numbers_are_short_and_have_units() {
        check(Count(0), "0");
        check(Count(999), "999");
        check(Count(1_234_567), "1\u{202f}234\u{202f}567");
        check(Rate(0.01), "0");
        check(Rate(0.26), "0.3");
        check(Rate(12_345.6), "12\u{202f}346");
        check(Rate::of(5, Duration::ZERO), "0");
        check(Millis(None), "–");
        check(Millis(Some(Duration::from_micros(340))), "0.3 ms");
        check(Millis(Some(Duration::from_millis(47))), "47 ms");
        check(Millis(Some(Duration::from_millis(2500))), "2.5 s");
        check(Share::of(1, 3), "33.3 %");
        check(Share::of(0, 0), "–");
        check(Bytes(512 << 10), "512 KiB");
        check(Bytes(64 << 20), "64 MiB");
        check(Bytes(24 << 30), "24 GiB");
        check(Span(59), "59 s");
        check(Span(3_720), "1 h 2 min");
        check(Span(90_000), "1 d 1 h");
        check(Span(86_400 * 90), "90 d");
        check(Moment(1_767_323_045), "2026-01-02 03:04 UTC");
        assert_eq!(Moment(1_767_323_045).clock(), "03:04:05");
        check(Moment(u64::MAX), "1970-01-01 00:00 UTC");
    }

    #[track_caller]
    fn check_json(value: impl Serialize, want: &str) {
        assert_eq!(serde_json::to_string(&value).unwrap(), want);
    }

    #[test]
    fn programs_get_numbers() {
        check_json(Rate(1.234_56), "1.235");
        check_json(Millis(None), "null");
        check_json(Millis(Some(Duration::from_micros(1500))), "1.5");
        check_json(Share::of(1, 3), "0.3333");
        check_json(Count(7), "7");
    }
}

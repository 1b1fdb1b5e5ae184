//! Durations `"250ms" "30s" "15m" "7d"`, sizes `"64KiB" "10MiB"` and rates `"100/s" "5/15m"`: one number, one unit.

use std::time::Duration;

use super::diagnostic::Fault;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("d", 24 * 60 * 60 * 1000),
];

const SIZES: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let bad = || {
        Fault::new(
            format!("`{text}` is not a duration"),
            "a whole number and one of ms, s, m, h, d: \"250ms\", \"30s\", \"15m\", \"7d\"",
        )
    };
    measure(text, &DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(bad)
}

/// Reads a duration that does not come from the file; an error is one sentence.
pub(crate) fn read_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|Fault { message, hint }| match hint {
        Some(hint) => format!("{message}: {hint}"),
        None => message,
    })
}

/// Reads a size in bytes.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let bad = || {
        Fault::new(
            format!("`{text}` is not a size"),
            "a whole number and one of B, KiB, MiB, GiB, TiB: \"64KiB\", \"10MiB\"",
        )
    };
    measure(text, &SIZES).ok_or_else(bad)
}

/// Reads a rate: how many, in which time. Neither is zero.
pub(super) fn rate(text: &str) -> Result<(u32, Duration), Fault> {
    let bad = || {
        Fault::new(
            format!("`{text}` is not a rate"),
            "a number above zero, a slash and a time: \"100/s\", \"5/15m\"",
        )
    };
    let (count, window) = text.split_once('/').ok_or_else(bad)?;
    let count = digits(count)
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count > 0)
        .ok_or_else(bad)?;
    let unit = DURATIONS.iter().find(|(unit, _)| *unit == window);
    let millis = unit
        .map(|(_, millis)| *millis)
        .or_else(|| measure(window, &DURATIONS))
        .filter(|millis| *millis > 0)
        .ok_or_else(bad)?;
    Ok((count, Duration::from_millis(millis)))
}

/// Reads a fraction such as `0.2`, in thousandths.
pub(super) fn thousandths(text: &str) -> Result<u32, Fault> {
    let bad = || {
        Fault::new(
            format!("`{text}` is not a fraction that is read here"),
            "plain digits, at most three of them after the point: 0.2",
        )
    };
    let (whole, parts) = text.split_once('.').unwrap_or((text, "0"));
    let padded = format!("{parts:0<3}");
    let number = |text: &str| digits(text).and_then(|number| u32::try_from(number).ok());
    number(whole)
        .and_then(|whole| whole.checked_mul(1000))
        .zip(number(&padded).filter(|_| padded.len() == 3 && !parts.is_empty()))
        .and_then(|(whole, parts)| whole.checked_add(parts))
        .ok_or_else(bad)
}

/// Writes thousandths as a fraction.
pub(crate) fn show_thousandths(value: u32) -> String {
    let text = format!("{}.{:03}", value / 1000, value % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes a duration in the largest unit that loses nothing.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATIONS, "s")
}

/// Writes a size in the largest unit that loses nothing.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES, "B")
}

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits(number)?.checked_mul(*factor)
}

/// Reads a whole number without sign, spaces or separators.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    if value == 0 {
        return format!("0{zero}");
    }
    let largest = units
        .iter()
        .rev()
        .find(|(_, factor)| value.is_multiple_of(*factor));
    largest.map_or_else(
        || value.to_string(),
        |(name, factor)| format!("{}{name}", value / factor),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_without_one_number_and_one_unit_are_refused() {
        for text in [
            "", "s", "30", "30 s", " 30s", "30s ", "-1s", "+1s", "1.5s", "1h30m", "30S", "30sec",
            "1w", "1y", "1us", "٣s", "1_000ms", "0x10s",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert!(duration("18446744073709551615d").is_err(), "overflow");
        assert!(duration("99999999999999999999s").is_err(), "overflow");
    }

    #[test]
    fn sizes_without_one_number_and_one_unit_are_refused() {
        for text in [
            "", "KiB", "10", "10 MiB", "10MB", "10mb", "10M", "10k", "-1KiB", "1.5MiB", "10mib",
        ] {
            assert!(size(text).is_err(), "{text:?}");
        }
        assert!(size("18446744073709551615KiB").is_err(), "overflow");
    }

    #[test]
    fn rates_that_admit_nobody_or_have_no_time_are_refused() {
        for text in [
            "",
            "/",
            "100",
            "100/",
            "/s",
            "0/s",
            "5/0s",
            "5/0",
            "5/15",
            "5 / 15m",
            "5/m15",
            "-5/s",
            "1.5/s",
            "5/s/s",
            "4294967296/s",
            "5/1w",
        ] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn fractions_of_more_than_three_digits_and_other_forms_are_refused() {
        for text in [
            "",
            ".",
            "0.",
            ".2",
            "0.1234",
            "-0.1",
            "+0.1",
            "1e-1",
            "nan",
            "inf",
            "0,2",
            "0.2.",
            "0. 2",
            "4294968",
            "99999999999999999999.0",
        ] {
            assert!(thousandths(text).is_err(), "{text:?}");
        }
        for (text, value) in [
            ("0", 0),
            ("0.2", 200),
            ("0.25", 250),
            ("1.001", 1001),
            ("10.0", 10_000),
        ] {
            assert_eq!(thousandths(text), Ok(value));
            assert_eq!(thousandths(&show_thousandths(value)), Ok(value));
        }
        assert_eq!(
            (&*show_thousandths(200), &*show_thousandths(0)),
            ("0.2", "0")
        );
    }

    #[test]
    fn the_forms_of_the_contract_are_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(rate("100/s"), Ok((100, Duration::from_secs(1))));
        assert_eq!(rate("5/15m"), Ok((5, Duration::from_secs(900))));
        assert_eq!(rate("10/1m"), Ok((10, Duration::from_secs(60))));
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis in 0..u64::MAX) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn sizes_round_trip(bytes: u64) {
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn rates_round_trip(count in 1..u32::MAX, millis in 1..u64::MAX) {
            let window = Duration::from_millis(millis);
            prop_assert_eq!(rate(&format!("{count}/{}", show_duration(window))), Ok((count, window)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}

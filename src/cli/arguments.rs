//! What several commands are told: the form of their answer, and how long something shall last.

use std::{ops::RangeInclusive, time::Duration};

use clap::ValueEnum;

use crate::config::{read_duration, show_duration};

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For programs.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Reads a duration as the configuration does, such as `90s` or `7d`.
///
/// # Errors
/// What is none, or lies outside of `range`, which the sentence names.
pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = read_duration(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
    Err(format!("from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_no_duration_or_out_of_range_is_refused() {
        let range = SECOND..=Duration::from_secs(900);
        for text in ["", "x", "10", "-5m", "5 m", "1h30m"] {
            let error = duration(text, &range).unwrap_err();
            assert!(error.contains("a whole number and one of"), "{error}");
        }
        for text in ["0s", "999ms", "901s", "16m", "1h", "1d"] {
            assert_eq!(duration(text, &range).unwrap_err(), "from 1s to 15m");
        }
    }

    #[test]
    fn both_ends_of_a_range_are_taken() {
        let range = Duration::ZERO..=Duration::from_secs(30 * 24 * 3600);
        assert_eq!(duration("0s", &range), Ok(Duration::ZERO));
        assert_eq!(duration("30d", &range), Ok(*range.end()));
        assert_eq!(duration("1500ms", &range), Ok(SECOND * 3 / 2));
    }
}

//! Small plots of the last minutes, drawn here as SVG: a browser without scripts sees them too.

use std::fmt::Write;

use super::{
    history::{History, Passed, SECONDS_MAX},
    texts::Texts,
    units::{Millis, Rate, Share, float},
    view::millis,
};

/// The size of a plot in its own units: one for each second, and a height.
const HEIGHT: f64 = 80.0;

/// A plot: lines over the last five minutes, all on one scale that begins at 0.
#[derive(Debug)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: &'static str,
    /// The same with the present values, for whoever hears it.
    pub(super) said: String,
    /// The highest value of the scale, with its unit.
    pub(super) highest: String,
    /// Its lines, the first in front of an area.
    pub(super) lines: Vec<Line>,
}

/// A line of a plot.
#[derive(Debug)]
pub(super) struct Line {
    /// A word for its style: `a`, `b` or `c`.
    pub(super) class: &'static str,
    /// What it is called.
    pub(super) name: &'static str,
    /// Its last value, with its unit.
    pub(super) now: String,
    /// Its way, as SVG writes it.
    pub(super) path: String,
}

/// A line that is to be drawn.
struct Series<'t> {
    class: &'static str,
    name: &'static str,
    show: &'t dyn Fn(f64) -> String,
    values: Vec<f64>,
}

/// The plots.
pub(super) fn all(history: &History, texts: &'static Texts) -> [Plot; 3] {
    let rate = |value: f64| Rate(value).to_string();
    let time =
        |value: f64| Millis(Some(std::time::Duration::from_secs_f64(value / 1000.0))).to_string();
    let share = |value: f64| Share(Some(value)).to_string();
    let of = |value: fn(&Passed) -> f64| history.seconds().map(value).collect::<Vec<f64>>();
    let series = |class, name, show, values| Series {
        class,
        name,
        show,
        values,
    };
    let requests = of(|second| Rate::of(second.requests, second.took).0);
    let refused = of(|second| Rate::of(second.refused, second.took).0);
    let failed = of(|second| Rate::of(second.failed, second.took).0);
    let p50 = of(|second| millis(second.durations.quantile(500)));
    let p99 = of(|second| millis(second.durations.quantile(990)));
    let hits = of(|second| {
        let [hit, joined, missed] = second.cache;
        let share = Share::of(hit + joined, hit + joined + missed);
        share.0.unwrap_or_default()
    });
    [
        plot(
            (texts.requests_plot, 1.0),
            vec![
                series("a", texts.requests, &rate, requests),
                series("b", texts.refused, &rate, refused),
                series("c", texts.failed, &rate, failed),
            ],
        ),
        plot(
            (texts.latency_plot, 1.0),
            vec![
                series("a", texts.p50, &time, p50),
                series("b", texts.p99, &time, p99),
            ],
        ),
        plot(
            (texts.cache_plot, 1.0),
            vec![series("a", texts.cache_hits, &share, hits)],
        ),
    ]
}

/// A scale of at least `least`, so that a quiet minute does not look like a mountain.
fn plot((title, least): (&'static str, f64), series: Vec<Series<'_>>) -> Plot {
    let values = series.iter().flat_map(|series| &series.values);
    let highest = values.copied().fold(least, f64::max);
    let mut said = title.to_owned();
    let mut shown = String::new();
    let mut lines = Vec::new();
    for Series {
        class,
        name,
        show,
        values,
    } in series
    {
        let now = show(values.last().copied().unwrap_or_default());
        let _ = write!(said, ", {name} {now}");
        shown = show(highest);
        lines.push(Line {
            class,
            name,
            now,
            path: path(&values, highest),
        });
    }
    Plot {
        title,
        said,
        highest: shown,
        lines,
    }
}

/// A way from the left, where the newest value is at the right end.
fn path(values: &[f64], highest: f64) -> String {
    let mut path = String::with_capacity(values.len() * 8);
    let first = SECONDS_MAX.saturating_sub(values.len());
    for (place, value) in values.iter().enumerate() {
        let letter = if place == 0 { 'M' } else { 'L' };
        let part = value / highest;
        let part = if part.is_nan() {
            0.0
        } else {
            part.clamp(0.0, 1.0)
        };
        let height = HEIGHT - part * HEIGHT;
        let _ = write!(path, "{letter}{} {height:.0}", first + place);
    }
    path
}

impl Line {
    /// The same way, closed along the ground.
    pub(super) fn area(&self) -> String {
        let Some(start) = self.path.strip_prefix('M') else {
            return String::new();
        };
        let first = start.split(' ').next().unwrap_or("0");
        let last = SECONDS_MAX - 1;
        format!("{}L{last} {HEIGHT}L{first} {HEIGHT}Z", self.path)
    }
}

impl Plot {
    /// The box that it is drawn in.
    pub(super) fn view_box(&self) -> String {
        let width = float(u64::try_from(SECONDS_MAX - 1).unwrap_or_default());
        format!("0 -2 {width} {}", HEIGHT + 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_is_at_the_right_and_the_highest_at_the_top() {
        assert_eq!(path(&[0.0, 5.0, 10.0], 10.0), "M297 80L298 40L299 0");
        assert_eq!(path(&[], 1.0), "");
    }

    #[test]
    fn an_area_is_closed_along_the_ground() {
        let line = |path: &str| Line {
            class: "a",
            name: "",
            now: String::new(),
            path: path.to_owned(),
        };
        assert_eq!(line("M298 40L299 0").area(), "M298 40L299 0L299 80L298 80Z");
        assert_eq!(line("").area(), "");
    }

    #[test]
    fn a_plot_without_values_is_one() {
        let plots = all(&History::default(), &super::super::texts::ENGLISH);
        for plot in &plots {
            assert!(plot.lines.iter().all(|line| line.path.is_empty()));
            assert!(!plot.said.is_empty() && !plot.highest.is_empty());
        }
    }

    #[test]
    fn values_that_are_none_stay_within_the_box() {
        assert_eq!(
            path(&[f64::NAN, f64::INFINITY, -1.0], 1.0),
            "M297 80L298 0L299 80"
        );
    }
}

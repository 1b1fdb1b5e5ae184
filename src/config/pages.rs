//! The section `[accounts.pages]`.

use std::path::{Path, PathBuf};

use super::{diagnostic::Fault, files, reader::Table};
use crate::{accounts::settings::PageSettings, portal::Logo};

/// The longest title, in characters: more does not fit a telephone.
const TITLE_CHARS_MAX: usize = 60;

/// What white text needs to be read on a colour (WCAG 2.2, 1.4.3).
const CONTRAST_MIN: f64 = 4.5;

pub(super) fn read(mut table: Table<'_>) -> PageSettings {
    let title = table.parsed("title", title);
    let accent = table.parsed("accent", accent);
    let root = table.context.root;
    let logo = table.parsed("logo", |text| logo(root, text));
    table.finish();
    let usual = PageSettings::default();
    PageSettings {
        title: title.unwrap_or(usual.title),
        accent: accent.unwrap_or(usual.accent),
        logo,
    }
}

fn title(text: &str) -> Result<Box<str>, Fault> {
    let length = text.chars().count();
    if text.trim() == text
        && (1..=TITLE_CHARS_MAX).contains(&length)
        && !text.contains(char::is_control)
    {
        return Ok(text.into());
    }
    let hint = format!("1 to {TITLE_CHARS_MAX} characters, no spaces around: \"Example Ltd\"");
    Err(Fault::new("is no title", hint))
}

/// A picture that can be written into a page.
fn logo(root: &Path, text: &str) -> Result<PathBuf, Fault> {
    let path = files::resolve(root, text);
    let hint = "a picture of at most 64 KiB: SVG, PNG, WebP or JPEG";
    match Logo::read(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(Fault::new(error.to_string(), hint)),
    }
}

/// A colour that white text can be read on.
fn accent(text: &str) -> Result<Box<str>, Fault> {
    let colour = text.strip_prefix('#').filter(|digits| {
        digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    let number = colour.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(number) = number else {
        let hint = "six hexadecimal digits: \"#1d4ed8\"";
        return Err(Fault::new(format!("`{text}` is not a colour"), hint));
    };
    let contrast = 1.05 / (luminance(number) + 0.05);
    if contrast < CONTRAST_MIN {
        let message =
            format!("white text on `{text}` cannot be read, its contrast is {contrast:.1}");
        return Err(Fault::new(
            message,
            format!("a darker colour: {CONTRAST_MIN} at least"),
        ));
    }
    Ok(text.to_ascii_lowercase().into())
}

/// Relative luminance (WCAG 2.2), 0 to 1.
fn luminance(colour: u32) -> f64 {
    let [_, red, green, blue] = colour.to_be_bytes();
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 {
            part / 12.92
        } else {
            ((part + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_that_hide_the_text_are_refused() {
        for bad in [
            "",
            "#",
            "blue",
            "#12345",
            "#1234567",
            "#12345g",
            "1d4ed8",
            "#ffffff",
            "#ffff00",
            "#888888",
            "#1d4ed8;}",
        ] {
            assert!(accent(bad).is_err(), "{bad}");
        }
        for good in ["#1D4ED8", "#000000", "#b91c1c", "#767676"] {
            assert_eq!(accent(good).unwrap().as_ref(), good.to_ascii_lowercase());
        }
    }

    #[test]
    fn titles_are_short_lines() {
        for bad in ["", " ", " a", "a\n", "a\u{7}b", &"a".repeat(61)] {
            assert!(title(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            title("Müller & Söhne <GmbH>").unwrap().as_ref(),
            "Müller & Söhne <GmbH>"
        );
    }
}

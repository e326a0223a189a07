//! Times, dates and fractions in words. Ported from `normalize.py` of hibari-tts 0.2.1 (Apache-2.0).

use super::letters::lower;
use super::normalise::{Match, Tables};
use super::numbers::{cardinal, ordinal};

const PARTS: [&str; 9] = ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];

fn number(text: &str) -> usize {
    text.parse().unwrap_or(0)
}

/// "10:30", "7:05 pm", "12:00:01".
pub(super) fn time(_: &Tables, found: &Match<'_>) -> Option<String> {
    let [hours, minutes, seconds, half] = [1, 2, 3, 4].map(|index| found.group(index));
    if number(hours) > 24 || number(minutes) > 59 || number(seconds) > 59 {
        return None;
    }
    let minutes = match number(minutes) {
        0 if half.is_empty() && seconds.is_empty() => " o'clock".to_owned(),
        0 => String::new(),
        1..10 => format!(" oh {}", cardinal(minutes)),
        _ => format!(" {}", cardinal(minutes)),
    };
    let seconds = match number(seconds) {
        _ if seconds.is_empty() => String::new(),
        1 => " and one second".to_owned(),
        _ => format!(" and {} seconds", cardinal(seconds)),
    };
    // With points, so that the letters are spelled.
    let point = if found.after.starts_with('.') { "" } else { "." };
    let half = if half.is_empty() { String::new() } else { format!(" {}.M{point}", half.to_uppercase()) };
    Some(format!("{}{minutes}{seconds}{half}", cardinal(hours)))
}

fn date(tables: &Tables, year: &str, month: usize, day: usize) -> Option<String> {
    let (_, month) = tables.months.get_index(month.checked_sub(1)?)?;
    if !(1..=31).contains(&day) {
        return None;
    }
    let year = if year.is_empty() { String::new() } else { format!(", {year}") };
    Some(format!("{month} {}{year}", ordinal(&day.to_string())))
}

/// "2024-03-05".
pub(super) fn iso(tables: &Tables, found: &Match<'_>) -> Option<String> {
    date(tables, found.group(1), number(found.group(2)), number(found.group(3)))
}

/// "12/25/2024": month first, if it can be one.
pub(super) fn american(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let (first, second, year) = (number(found.group(1)), number(found.group(2)), found.group(3));
    let century = match number(year) {
        _ if year.len() != 2 => "",
        31.. => "19",
        _ => "20",
    };
    let (month, day) = if first <= 12 { (first, second) } else { (second, first) };
    date(tables, &format!("{century}{year}"), month, day)
}

fn month<'a>(tables: &'a Tables, name: &str) -> Option<&'a String> {
    tables.months.get(lower(name).get(..3)?)
}

/// "Mar. 3", "March 3rd, 2024".
pub(super) fn month_day(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let (name, day) = (month(tables, found.group(1))?, found.group(2));
    (1..=31).contains(&number(day)).then(|| format!("{name} {}{}", ordinal(day), found.group(3)))
}

/// "3 March", "the 3 of March".
pub(super) fn day_month(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let (day, name) = (found.group(2), month(tables, found.group(3))?);
    (1..=31).contains(&number(day)).then(|| format!("the {} of {name}", ordinal(day)))
}

/// "3/4" is a fraction, "7/30" a day, "25/60" neither.
pub(super) fn fraction(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let (above, below) = (number(found.group(1)), number(found.group(2)));
    if 0 < above && above < below && below <= 10 {
        let part = PARTS[below - 2];
        return Some(match (above, part) {
            (1, "half") => "one half".to_owned(),
            (1, _) => format!("1 {part}"),
            _ => format!("{above} {part}s"),
        });
    }
    if (1..=12).contains(&above) && (1..=31).contains(&below) {
        return date(tables, "", above, below);
    }
    Some(format!("{above} slash {below}"))
}

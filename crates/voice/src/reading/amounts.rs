//! Amounts with units, money, Roman numerals. Ported from `normalize.py` of hibari-tts 0.2.1 (Apache-2.0).

#![expect(clippy::unnecessary_wraps, reason = "all rules have one signature")]

use super::normalise::{Match, Tables};
use super::numbers::ordinal;

/// Singular for one, plural for all others.
fn counted<'a>(count: &str, [one, many]: &'a [String; 2]) -> &'a str {
    if matches!(count.replace(',', "").as_str(), "1" | "1.0" | "-1") { one } else { many }
}

fn large_number(text: &str) -> &str {
    match text {
        "k" | "K" => "thousand",
        "m" | "M" => "million",
        "b" | "B" => "billion",
        _ => text,
    }
}

/// "$5 million", "£3k".
pub(super) fn large_sum(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let [_, many] = tables.currency.get(found.group(1))?;
    Some(format!("{} {} {many}", found.group(2), large_number(found.group(3))))
}

/// "99¢".
pub(super) fn cents(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let count = found.group(1);
    Some(format!("{count} {}", counted(count, tables.currency.get("¢")?)))
}

/// "¥500", "EUR 3 million".
pub(super) fn foreign_sum(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let (count, large) = (found.group(2), large_number(found.group(3)));
    let words = tables.currency.get(found.group(1).trim_end_matches('.'))?;
    Some(if large.is_empty() {
        format!("{count} {}", counted(count, words))
    } else {
        format!("{count} {large} {}", words[1])
    })
}

/// "20 °C".
pub(super) fn degrees(_: &Tables, found: &Match<'_>) -> Option<String> {
    let count = found.group(1);
    let scale = match found.group(2) {
        "C" => " Celsius",
        "F" => " Fahrenheit",
        _ => "",
    };
    let words = ["degree".to_owned(), "degrees".to_owned()];
    Some(format!("{count} {}{scale}", counted(count, &words)))
}

/// "5 km".
pub(super) fn quantity(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let count = found.group(1);
    Some(format!("{count} {}", counted(count, tables.units.get(found.group(2))?)))
}

/// "Chapter IV".
pub(super) fn roman_cardinal(_: &Tables, found: &Match<'_>) -> Option<String> {
    Some(format!("{} {}", found.group(1), roman(found.group(2))))
}

/// "Henry VIII".
pub(super) fn roman_ordinal(_: &Tables, found: &Match<'_>) -> Option<String> {
    Some(format!("{} the {}", found.group(1), ordinal(&roman(found.group(2)).to_string())))
}

fn roman(numeral: &str) -> u32 {
    let value = |c: char| match c {
        'I' => 1,
        'V' => 5,
        'X' => 10,
        'L' => 50,
        'C' => 100,
        'D' => 500,
        'M' => 1000,
        _ => 0,
    };
    // From the right: what is smaller than the one after it is taken away from it.
    let (total, _) = numeral.chars().rev().map(value).fold((0_u32, 0), |(total, after), value| {
        (if value < after { total.saturating_sub(value) } else { total + value }, value)
    });
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roman_numerals() {
        assert_eq!(["IV", "VIII", "XIX", "XLII", "MCMXCIV"].map(roman), [4, 8, 19, 42, 1994]);
    }
}

//! Numbers in words: cardinal, ordinal, years, decimals. Ported from `numbers.py` of hibari-tts 0.2.1 (Apache-2.0).

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SCALES: [&str; 12] = [
    "",
    "thousand",
    "million",
    "billion",
    "trillion",
    "quadrillion",
    "quintillion",
    "sextillion",
    "septillion",
    "octillion",
    "nonillion",
    "decillion",
];
const IRREGULAR: [(&str, &str); 7] = [
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("five", "fifth"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("twelve", "twelfth"),
];
/// Digits of the largest number that has a name here.
const DIGITS_MAX: usize = 3 * SCALES.len();

/// A number written in digits, in words: "one thousand, two hundred and thirty-four". Numbers too long to have a name are read digit by digit.
pub(super) fn cardinal(digits: &str) -> String {
    let digits = digits.trim_start_matches('0');
    if digits.len() > DIGITS_MAX {
        return spelled(digits);
    }
    let number: u128 = digits.parse().unwrap_or(0);
    if number < 1000 {
        return below_thousand(number as usize);
    }
    let mut groups = Vec::new();
    let mut left = number;
    for scale in SCALES {
        let group = (left % 1000) as usize;
        if group > 0 {
            let words = below_thousand(group);
            groups.push(if scale.is_empty() { words } else { format!("{words} {scale}") });
        }
        left /= 1000;
    }
    groups.reverse();
    let last = (number % 1000) as usize;
    match groups.split_last() {
        // "one thousand and one", but "one thousand, one hundred".
        Some((tail, head)) if !head.is_empty() && (1..100).contains(&last) => format!("{} and {tail}", head.join(", ")),
        _ => groups.join(", "),
    }
}

/// Digit by digit.
pub(super) fn spelled(digits: &str) -> String {
    let words: Vec<&str> = digits.chars().filter_map(|c| c.to_digit(10)).map(|digit| ONES[digit as usize]).collect();
    words.join(" ")
}

fn below_thousand(number: usize) -> String {
    let mut words = Vec::new();
    let rest = number % 100;
    if number >= 100 {
        words.push(ONES[number / 100].to_owned());
        words.push("hundred".to_owned());
        if rest > 0 {
            words.push("and".to_owned());
        }
    }
    if rest >= 20 {
        let one = if rest.is_multiple_of(10) { String::new() } else { format!("-{}", ONES[rest % 10]) };
        words.push(format!("{}{one}", TENS[rest / 10]));
    } else if rest > 0 || words.is_empty() {
        words.push(ONES[rest].to_owned());
    }
    words.join(" ")
}

/// The ordinal number: "twenty-third", "one hundred and first", "one thousandth".
pub(super) fn ordinal(digits: &str) -> String {
    let words = cardinal(digits);
    let at = words.rfind([' ', '-']).map_or(0, |at| at + 1);
    let (head, last) = words.split_at(at);
    let ending = match IRREGULAR.iter().find(|(cardinal, _)| *cardinal == last) {
        Some((_, ordinal)) => (*ordinal).to_owned(),
        None => last.strip_suffix('y').map_or_else(|| format!("{last}th"), |stem| format!("{stem}ieth")),
    };
    format!("{head}{ending}")
}

/// A year of four digits: "nineteen oh-five", "two thousand and five", "twenty ten".
pub(super) fn year(digits: &str) -> String {
    let number: u32 = digits.parse().unwrap_or(0);
    let (high, low) = (number / 100, number % 100);
    if high == 0 || (high.is_multiple_of(10) && low < 10) || high >= 100 {
        return cardinal(digits);
    }
    let low = match low {
        0 => "hundred".to_owned(),
        1..10 => format!("oh-{}", ONES[low as usize]),
        _ => below_thousand(low as usize),
    };
    format!("{} {low}", below_thousand(high as usize))
}

/// A decimal number: "three point one four". Zeros at the end are not read.
pub(super) fn decimal(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let whole = cardinal(whole);
    if fraction.is_empty() { whole } else { format!("{whole} point {}", spelled(fraction)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cardinals_read_as_num2words_does() {
        for (digits, words) in [
            ("0", "zero"),
            ("7", "seven"),
            ("13", "thirteen"),
            ("40", "forty"),
            ("99", "ninety-nine"),
            ("100", "one hundred"),
            ("101", "one hundred and one"),
            ("999", "nine hundred and ninety-nine"),
            ("1000", "one thousand"),
            ("1001", "one thousand and one"),
            ("1020", "one thousand and twenty"),
            ("1100", "one thousand, one hundred"),
            ("1234", "one thousand, two hundred and thirty-four"),
            ("20000", "twenty thousand"),
            ("1000000", "one million"),
            ("1000023", "one million and twenty-three"),
            ("1002000", "one million, two thousand"),
            ("007", "seven"),
            (
                "999999999",
                "nine hundred and ninety-nine million, nine hundred and ninety-nine thousand, nine hundred and ninety-nine",
            ),
            ("1000000000000000000000000000000000", "one decillion"),
        ] {
            assert_eq!(cardinal(digits), words);
        }
        assert_eq!(cardinal(&"1".repeat(37)).split(' ').count(), 37, "no name: digit by digit");
        assert_eq!(cardinal(""), "zero");
    }

    #[test]
    fn ordinals_years_and_decimals() {
        for (digits, words) in [
            ("1", "first"),
            ("2", "second"),
            ("12", "twelfth"),
            ("20", "twentieth"),
            ("23", "twenty-third"),
            ("100", "one hundredth"),
            ("101", "one hundred and first"),
            ("1000", "one thousandth"),
        ] {
            assert_eq!(ordinal(digits), words);
        }
        for (digits, words) in [
            ("1905", "nineteen oh-five"),
            ("1900", "nineteen hundred"),
            ("1999", "nineteen ninety-nine"),
            ("2000", "two thousand"),
            ("2005", "two thousand and five"),
            ("2010", "twenty ten"),
            ("2024", "twenty twenty-four"),
            ("0042", "forty-two"),
        ] {
            assert_eq!(year(digits), words);
        }
        assert_eq!(decimal("3.14"), "three point one four");
        assert_eq!(decimal("10.50"), "ten point five");
        assert_eq!(decimal("2."), "two");
        assert_eq!(decimal(".5"), "zero point five");
    }
}

//! Recorded requests: CSV files with the header `TIMESTAMP,ContextTokens,GeneratedTokens`, as the public traces of language model
//! services have it.

use std::ops::Range;
use std::sync::Arc;

use crate::system::Request;
use crate::units::Nanos;

use super::ArrivalSpec;
use super::error::{SpecError, SpecErrors};
use super::limits;

const HEADER: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// Mistakes reported from one trace.
const MISTAKES_MAX: usize = 10;

/// Which part of a trace is used, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceWindow {
    /// Requests before this time of the trace are left out [s].
    pub from_s: f64,
    /// Requests from this time of the trace on are left out [s].
    pub to_s: f64,
    /// Time within the trace passes so many times as fast.
    pub speed: f64,
    /// Added to every arrival [s].
    pub start_s: f64,
    /// Longer prompts are cut to this [tokens].
    pub max_prompt: u32,
    /// Longer outputs are cut to this [tokens].
    pub max_output: u32,
}

impl TraceWindow {
    /// As a scenario's arrival table has it.
    pub(crate) fn of(arrival: &ArrivalSpec) -> Self {
        Self {
            from_s: arrival.from_s,
            to_s: arrival.to_s.unwrap_or(f64::INFINITY),
            speed: arrival.speed.unwrap_or(1.0),
            start_s: arrival.start_s,
            max_prompt: arrival.max_prompt.unwrap_or(u32::MAX),
            max_output: arrival.max_output.unwrap_or(u32::MAX),
        }
    }
}

/// Reads a trace. Times count from its earliest request; requests are put in order of time.
///
/// # Errors
/// The header, or the lines and fields that are not as they should be (at most ten).
pub fn read_trace(file: &str, text: &str, window: &TraceWindow) -> Result<Vec<Request>, SpecErrors> {
    let mut requests = rows(file, text)?;
    requests.sort_by_key(|&(at, ..)| at);
    let first = requests.first().map_or(0, |&(at, ..)| at);
    let used = requests.into_iter().filter_map(|(at, prompt, output)| {
        let at_s = (at - first) as f64 / 1e9;
        let within = at_s >= window.from_s && at_s < window.to_s;
        within.then(|| Request {
            at: Nanos::from_secs((at_s - window.from_s) / window.speed + window.start_s),
            prompt: prompt.min(window.max_prompt),
            output: output.min(window.max_output),
        })
    });
    Ok(used.collect())
}

/// All requests with their times [ns] since an unknown start.
fn rows(file: &str, text: &str) -> Result<Vec<(i128, u32, u32)>, SpecErrors> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let headers =
        reader.headers().map(|header| header.iter().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
    // Kept for the messages only once something is wrong: traces are long.
    let shown = || -> Arc<str> { Arc::from(text) };
    if headers != HEADER {
        let problem = format!("the header is `{}`", headers.join(","));
        let help = format!("must be `{}`", HEADER.join(","));
        return Err(SpecError::at(file, &shown(), 0..0, "header", problem, Some(help)).into());
    }
    let (mut requests, mut errors) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let at = error.position().map_or(0, |position| position.byte() as usize);
                errors.push(SpecError::at(
                    file,
                    &shown(),
                    at..at,
                    "",
                    format!("not a row of three values: {error}"),
                    None,
                ));
                break;
            }
        };
        let at = record.position().map_or(0, |position| position.byte() as usize);
        match row(&record) {
            Ok(row) => requests.push(row),
            Err((field, help)) => {
                let span = field_span(text, at, field);
                let problem = format!("`{}` does not fit", record.get(field).unwrap_or(""));
                errors.push(SpecError::at(file, &shown(), span, HEADER[field], problem, Some(help.to_owned())));
            }
        }
        if errors.len() >= MISTAKES_MAX || requests.len() > limits::REQUESTS_MAX {
            break;
        }
    }
    if requests.len() > limits::REQUESTS_MAX {
        let problem = format!("more than {} requests", limits::REQUESTS_MAX);
        errors.push(SpecError::elsewhere(file, "", problem, Some("use a part of the trace".to_owned())));
    }
    if errors.is_empty() { Ok(requests) } else { Err(SpecErrors::new(errors)) }
}

/// Time [ns], prompt and output of a row; or the number of the field that is wrong, and what it must be.
fn row(record: &csv::StringRecord) -> Result<(i128, u32, u32), (usize, &'static str)> {
    let field = |i: usize| record.get(i).unwrap_or("");
    let time =
        timestamp(field(0)).ok_or((0, "must be a time such as 2023-11-16 18:15:46.68 or a number of seconds ≥ 0"))?;
    let tokens = |i: usize| {
        let count = field(i).parse::<u32>().ok().filter(|&count| limits::TOKENS.allows(f64::from(count)));
        count.ok_or((i, "must be a whole number from 1 to 1000000"))
    };
    Ok((time, tokens(1)?, tokens(2)?))
}

/// Where a value of the row that starts at a position stands.
fn field_span(text: &str, row: usize, field: usize) -> Range<usize> {
    let rest = text.get(row..).unwrap_or("");
    let line = rest.trim_start_matches(['\n', '\r']);
    let mut start = row + (rest.len() - line.len());
    let line = line.lines().next().unwrap_or("");
    for (i, value) in line.split(',').enumerate() {
        if i == field {
            return start..start + value.len();
        }
        start += value.len() + 1;
    }
    row..row
}

/// A time [ns]: `2023-11-16 18:15:46.6805900` since a fixed day, or seconds.
fn timestamp(text: &str) -> Option<i128> {
    let Some((date, time)) = text.split_once([' ', 'T']) else {
        return decimal_ns(text);
    };
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i128>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<i128>().ok()?, time.next()?.parse::<i128>().ok()?);
    let second = decimal_ns(time.next()?)?;
    let fits = (0..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && second < 61_000_000_000;
    // Days of the proleptic Gregorian calendar, with years that start in March so that leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day;
    fits.then_some(((days * 24 + hour) * 60 + minute) * 60_000_000_000 + second)
}

/// A number of seconds with decimals [ns], exactly; digits past the ninth are cut.
fn decimal_ns(text: &str) -> Option<i128> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let nanos: String = decimals.chars().chain("000000000".chars()).take(9).collect();
    Some(whole.parse::<i128>().ok()? * 1_000_000_000 + nanos.parse::<i128>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2024-02-28 23:59:59.5000000,100,10\n\
        2024-02-29 00:00:00.2500000,200,20\n\
        2024-03-01 00:00:00.5,300,30\n";

    fn window() -> TraceWindow {
        TraceWindow {
            from_s: 0.0,
            to_s: f64::INFINITY,
            speed: 1.0,
            start_s: 0.0,
            max_prompt: u32::MAX,
            max_output: u32::MAX,
        }
    }

    #[test]
    fn times_count_from_the_first_request_across_a_leap_day() {
        let requests = read_trace("t.csv", TRACE, &window()).expect("the trace is sound");
        let at: Vec<Nanos> = requests.iter().map(|r| r.at).collect();
        assert_eq!(at, [Nanos::ZERO, Nanos::from_ms(750.0), Nanos::from_secs(86401.0)]);
        assert_eq!((requests[1].prompt, requests[1].output), (200, 20));
    }

    #[test]
    fn a_window_is_shifted_sped_up_and_cut() {
        let window =
            TraceWindow { from_s: 0.5, to_s: 100.0, speed: 2.0, start_s: 1.0, max_prompt: 150, max_output: 15 };
        let requests = read_trace("t.csv", TRACE, &window).expect("the trace is sound");
        assert_eq!(requests, [Request { at: Nanos::from_ms(1125.0), prompt: 150, output: 15 }]);
    }

    #[test]
    fn mistakes_name_line_and_field() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n0.5,10,5\nsoon,10,5\n2,10,-5\n3,10\n";
        let errors = read_trace("t.csv", text, &window()).expect_err("three rows are wrong").to_string();
        let lines: Vec<&str> = errors.lines().collect();
        assert!(lines[0].starts_with("t.csv:3:1: TIMESTAMP: `soon` does not fit"), "{errors}");
        assert!(lines[1].starts_with("t.csv:4:6: GeneratedTokens: `-5` does not fit"), "{errors}");
        assert!(lines[2].starts_with("t.csv:5:1: not a row of three values"), "{errors}");
        let header = read_trace("t.csv", "a,b\n", &window()).expect_err("wrong header").to_string();
        assert!(header.contains("the header is `a,b` (must be `TIMESTAMP,"), "{header}");
    }
}

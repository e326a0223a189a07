//! Everything a person sees of a run: tables, advice, timelines, HTML reports, traces and files.
//!
//! All of it is computed from records and summaries ([`onbeat_core`]) and nothing else; this crate knows neither the simulator nor
//! the policies. The caller fills a [`Report`] and picks outputs:
//!
//! * [`table`]: tables for a terminal; [`advice`]: which policy to use and why, in words;
//! * [`timeline`]: what ran where and when, from events; [`timeline_svg`]: the same as a picture for print;
//! * [`html`]: a report in one file, without external requests;
//! * [`perfetto`]: a trace for <https://ui.perfetto.dev>;
//! * [`json`], [`csv`]: stable files for other programs.

pub mod advice;
pub mod charts;
pub mod columns;
pub mod csv;
pub mod html;
pub mod json;
pub mod model;
pub mod palette;
pub mod perfetto;
pub mod svg;
pub mod table;
pub mod timeline;
pub mod timeline_svg;

pub use model::{Bound, Comparison, Excerpt, PolicyRow, Reason, Report, Statistic, Statistics, Verdict};

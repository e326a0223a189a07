//! The HTML report.

use onbeat_core::id::SourceId;
use onbeat_report::Report;
use onbeat_report::html::{HtmlOptions, render};

use crate::sample;

fn html(report: &Report) -> String {
    render(report, HtmlOptions::default()).expect("the template is in order")
}

/// Writes a sample to look at when `ONBEAT_REPORT_SAMPLES` names a folder.
fn keep(name: &str, text: impl AsRef<[u8]>) {
    if let Some(folder) = std::env::var_os("ONBEAT_REPORT_SAMPLES") {
        std::fs::write(std::path::Path::new(&folder).join(name), text).expect("the folder exists");
    }
}

#[test]
fn the_usual_report_has_all_its_parts() {
    let page = html(&sample::usual());
    keep("usual.html", &page);
    for part in [
        "Use <code>llf</code>",
        "Violations by stream",
        "Response times",
        "Inside a policy",
        "What the figures rest on",
        "Assumptions",
        "lower bound",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<figcaption>").count() - page.matches("Busy time by model,").count(), 5 + 2);
}

#[test]
fn many_policies_and_streams() {
    let page = html(&sample::usual_with(sample::system(5)));
    keep("many.html", &page);
    assert!(page.contains("incoming-video-5"));
}

#[test]
fn a_matrix_has_an_index() {
    let mut report = sample::usual();
    for (i, policies) in [&sample::TEN[..4], &sample::TEN[2..], &sample::TEN[..]].into_iter().enumerate() {
        let mut system = sample::system(i);
        system.scenario = format!("scenario-{}", i + 1);
        system.title = format!("Scenario {}", i + 1);
        report.comparisons.push(sample::comparison(system, policies, 3));
    }
    let page = html(&report);
    keep("matrix.html", &page);
    assert!(page.contains("At a glance"));
    for i in 1..=4 {
        assert_eq!(page.matches(&format!("<article id=\"c{i}\">")).count(), 1);
    }
}

#[test]
fn names_cannot_become_markup() {
    let mut system = sample::system(1);
    let evil = "<script>alert('x')</script>\" onload=\"`</svg>&";
    system.sources[SourceId(0)].name = evil.to_owned();
    system.platform.title = evil.to_owned();
    system.platform.processors[onbeat_core::id::ProcessorId(0)].name = evil.to_owned();
    system.title = evil.to_owned();
    system.description = evil.to_owned();
    system.assumptions.push(evil.to_owned());
    system.warnings.push(evil.to_owned());
    system.figures[0].source = evil.to_owned();
    system.nodes[onbeat_core::id::NodeId(0)].name = evil.to_owned();
    system.models[onbeat_core::id::ModelId(0)].name = evil.to_owned();
    let comparison = sample::comparison(system, &[(evil, &[0.1]), ("edf", &[0.0])], 2);
    let page = html(&Report { onbeat: evil.to_owned(), command: Some(evil.to_owned()), comparisons: vec![comparison] });
    keep("evil.html", &page);
    assert!(!page.contains("<script>alert"), "a name became a script");
    // Within the data, quotes are escaped as JSON; everywhere else they must not appear.
    let (before, data) = page.split_once("-data\">").expect("there is data");
    let (_, after) = data.split_once("</script>").expect("the data ends");
    assert!(!before.contains("\" onload=") && !after.contains("\" onload="), "a name left its attribute");
    // The page's own elements: the data and the behaviour.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script>").count(), 2);
}

#[test]
fn the_page_asks_nothing_of_the_network() {
    let page = html(&sample::usual());
    let urls = page.match_indices("http").map(|(i, _)| &page[i..(i + 40).min(page.len())]);
    for url in urls {
        let allowed = url.starts_with("http-equiv") || url.starts_with("http://www.w3.org/2000/svg");
        assert!(allowed, "{url}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn it_works_without_events_streams_of_figures_or_policies() {
    let mut report = sample::usual();
    for row in &mut report.comparisons[0].rows {
        row.excerpt = None;
        for run in &mut row.runs {
            run.provenance.clear();
            run.bus_traffic.clear();
        }
    }
    assert!(!html(&report).contains("<canvas"));
    report.comparisons[0].rows.clear();
    assert!(html(&report).contains("No policy ran."));
    assert!(html(&Report::default()).contains("0 comparisons"));
}

#[test]
fn a_long_run_ends_the_timeline_early_and_says_so() {
    let page = render(&sample::usual(), HtmlOptions { slices_max: 50, points_max: 20, policies_max: 2 })
        .expect("the template is in order");
    assert!(page.contains("the report holds 0 ns to"));
}

//! What many runs add up to: a summary as text, and charts of what a mesh costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Error;
use crate::host::Came;
use crate::run::{Outcome, run};
use crate::scenario::{Act, Scenario, Step};
use crate::time::Span;

/// Differences of two halves that are charted.
pub const DIFFERENCES: &[usize] = &[1, 10, 50, 100, 200, 400];

/// What many runs of a scenario add up to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Runs in which something was wrong.
    pub failed: u64,
    converged_ms: Vec<u64>,
    writes: u64,
    failures: u64,
    injected: BTreeMap<&'static str, u64>,
    messages: u64,
    bytes: u64,
    came: Came,
    virtual_ms: u64,
    real_ms: u64,
}

impl Summary {
    /// Takes a run in.
    pub fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.failed += u64::from(!outcome.wrong.is_empty());
        self.converged_ms.extend(outcome.converged_ms);
        self.writes += outcome.writes;
        self.failures += outcome.failures;
        for (kind, many) in &outcome.injected {
            *self.injected.entry(kind).or_default() += many;
        }
        self.messages += outcome.messages;
        self.bytes += outcome.bytes;
        self.came = self.came + outcome.came;
        self.virtual_ms += outcome.virtual_ms;
        self.real_ms += outcome.real_ms;
    }

    /// The summary as lines of text.
    #[must_use]
    pub fn text(&self, scenario: &str) -> String {
        let mut times = self.converged_ms.clone();
        times.sort_unstable();
        let at = |share: f64| times.get(((times.len() as f64 - 1.0).max(0.0) * share) as usize).copied().unwrap_or(0);
        let injected: Vec<String> = self.injected.iter().map(|(kind, many)| format!("{many} {kind}")).collect();
        let mut text = format!("{scenario}: {} runs, {} failed\n", self.runs, self.failed);
        let seconds = |ms: u64| ms as f64 / 1e3;
        _ = writeln!(
            text,
            "equal again after {:.1} s (median), {:.1} s (99 %), {:.1} s (longest)",
            seconds(at(0.5)),
            seconds(at(0.99)),
            seconds(at(1.0))
        );
        _ = writeln!(text, "{} writes acknowledged, {} refused or of unknown fate", self.writes, self.failures);
        if !injected.is_empty() {
            _ = writeln!(text, "{}", injected.join(", "));
        }
        _ = writeln!(text, "{}", self.came_twice());
        _ = write!(
            text,
            "{} messages, {:.1} MB; {:.1} h of virtual time in {:.1} s",
            self.messages,
            self.bytes as f64 / 1e6,
            seconds(self.virtual_ms) / 3_600.0,
            seconds(self.real_ms)
        );
        text
    }

    /// What came to peers that was there already, by the way on which it came.
    fn came_twice(&self) -> String {
        let Came { all, twice_by_gossip, twice_by_comparing, twice_by_reconnecting, copies } = self.came;
        let percent = |part: u64| 100.0 * part as f64 / (all as f64).max(1.0);
        format!(
            "{all} changes came to peers, {:.1} % of them were there already: {:.1} % over gossip, {:.1} % by comparing, \
             {:.1} % by comparing after a reconnect; besides, {:.1} % as copies of gossip messages, which gossip drops",
            percent(self.came.twice()),
            percent(twice_by_gossip),
            percent(twice_by_comparing),
            percent(twice_by_reconnecting),
            percent(copies),
        )
    }
}

/// Numbers of peers that are charted.
#[must_use]
pub fn sizes(peers_max: usize) -> Vec<usize> {
    [2, 4, 6, 10, 15, 20, 30, 40, 60, 80, 100].into_iter().filter(|peers| *peers <= peers_max).collect()
}

/// One point of a chart: the mean of its runs.
#[derive(Debug, Clone, Copy)]
struct Point {
    x: f64,
    seconds: f64,
    messages: f64,
    kilobytes: f64,
}

/// Runs what is charted and draws it; `tell` is called after each run.
///
/// # Errors
/// When a run fails.
pub fn page(seeds: u64, peers_max: usize, mut tell: impl FnMut()) -> Result<String, Error> {
    let mut by_peers = Vec::new();
    for peers in sizes(peers_max) {
        by_peers.push(point(peers as f64, &halves(peers, 100), &halves(peers, 0), seeds, &mut tell)?);
    }
    let mut by_differences = Vec::new();
    for &differences in DIFFERENCES {
        by_differences.push(point(differences as f64, &halves(10, differences), &halves(10, 0), seeds, &mut tell)?);
    }
    let mut html = String::from(HEAD);
    for (title, x, points) in [
        ("Two halves of a mesh meet again, 100 documents written in each", "peers", &by_peers),
        ("Ten peers meet again, by what was written in each half", "documents", &by_differences),
    ] {
        _ = write!(html, "<h2>{title}</h2><div>");
        html.push_str(&chart("seconds until all are equal", x, points, |point| point.seconds));
        html.push_str(&chart("messages", x, points, |point| point.messages));
        html.push_str(&chart("kilobytes", x, points, |point| point.kilobytes));
        html.push_str("</div>");
    }
    html.push_str("</body></html>\n");
    Ok(html)
}

/// A mesh of which two halves write while they are apart.
fn halves(peers: usize, documents: usize) -> Scenario {
    let half: Vec<usize> = (0..peers / 2).collect();
    let rest: Vec<usize> = (peers / 2..peers).collect();
    let at = |seconds, act| Step { at: Span::seconds(seconds), act };
    let mut scenario = Scenario::quiet("halves", peers, Span::seconds(30));
    scenario.steps = vec![
        at(1, Act::Partition(vec![half, rest])),
        at(20, Act::Write { peer: 0, documents }),
        at(20, Act::Write { peer: peers - 1, documents }),
    ];
    scenario
}

/// The mean of several runs, of messages and bytes what is beyond the same run without writes.
fn point(x: f64, with: &Scenario, without: &Scenario, seeds: u64, tell: &mut impl FnMut()) -> Result<Point, Error> {
    let mut point = Point { x, seconds: 0.0, messages: 0.0, kilobytes: 0.0 };
    for seed in 0..seeds {
        let (with, without) = (clean(with, seed)?, clean(without, seed)?);
        let share = 1.0 / seeds as f64;
        point.seconds += share * with.converged_ms.unwrap_or(0) as f64 / 1e3;
        point.messages += share * (with.messages as f64 - without.messages as f64);
        point.kilobytes += share * (with.bytes as f64 - without.bytes as f64) / 1e3;
        tell();
    }
    Ok(point)
}

/// A run in which nothing is wrong.
pub(crate) fn clean(scenario: &Scenario, seed: u64) -> Result<Outcome, Error> {
    let outcome = run(scenario, seed);
    match outcome.wrong.first() {
        None => Ok(outcome),
        Some(wrong) => Err(Error::Run(format!("{} peers, seed {seed}: {wrong}", outcome.peers))),
    }
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>netsim</title><style>\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}\
h2{font-size:1.1rem;margin-top:2rem}div{display:flex;flex-wrap:wrap;gap:1rem}\
svg{border:1px solid #ddd;border-radius:4px}text{font:11px system-ui,sans-serif;fill:#444}\
</style></head><body><h1>What a mesh costs</h1>";

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 220.0;
const MARGIN: f64 = 44.0;

/// A line chart as SVG.
fn chart(y: &str, x: &str, points: &[Point], value: impl Fn(&Point) -> f64) -> String {
    let most_x = points.iter().map(|point| point.x).fold(1.0, f64::max);
    let most_y = points.iter().map(&value).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let across = |at: f64| MARGIN + at / most_x * (WIDTH - MARGIN - 12.0);
    let down = |at: f64| HEIGHT - 30.0 - at / most_y * (HEIGHT - 60.0);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">");
    _ = write!(svg, "<text x=\"{MARGIN}\" y=\"18\">{y}</text>");
    for share in [0.0, 0.5, 1.0] {
        let at = down(share * most_y / 1.1);
        _ = write!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#eee\"/>",
            WIDTH - 12.0
        );
        _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            MARGIN - 6.0,
            at + 4.0,
            short(share * most_y / 1.1)
        );
    }
    for point in points {
        let at = across(point.x);
        _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 14.0, point.x);
    }
    _ = write!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{x}</text>", WIDTH - 12.0, HEIGHT - 2.0);
    let line: Vec<String> =
        points.iter().map(|point| format!("{:.1},{:.1}", across(point.x), down(value(point)))).collect();
    _ = write!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1b6ac9\" stroke-width=\"2\"/>", line.join(" "));
    for point in points {
        let (at_x, at_y) = (across(point.x), down(value(point)));
        _ = write!(
            svg,
            "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\" fill=\"#1b6ac9\"><title>{}: {}</title></circle>",
            point.x,
            short(value(point))
        );
    }
    svg.push_str("</svg>");
    svg
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

//! What the matrix measured, as text for a terminal and as a picture.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Kind;
use super::matrix::{Inviter, Measured, Outcome, Pair};

/// Width of a cell of the text.
const CELL: usize = 12;
/// Size of a cell of the picture.
const WIDTH: usize = 118;
const HEIGHT: usize = 46;

/// The heading of [`line()`].
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<23} {:<18} {:<8} {:<8} {:>9} {:>7} {:>5} {:>8} {:>9}",
        "listener", "dialer", "expected", "is", "connected", "direct", "over", "document", "relayed"
    )
}

/// One result as a line.
#[must_use]
pub fn line(result: &Measured) -> String {
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let Pair { listener, dialer, same_nat, ticket } = result.pair;
    let (listener, dialer) = (label((ticket, listener)), if same_nat { "the same" } else { dialer.name() });
    let bytes = result.relay_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1} kB", bytes / 1000.0));
    format!(
        "{listener:<23} {dialer:<18} {:<8} {:<8} {:>9} {:>7} {:>5} {:>8} {bytes:>9}{}{}",
        result.expected.word(),
        result.outcome.word(),
        ms(result.connected_ms),
        ms(result.direct_ms),
        result.transport.unwrap_or("-"),
        ms(result.document_ms),
        if result.is_worse() { "  WORSE" } else { "" },
        result.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default(),
    )
}

/// What several measurements of one pair come to: the worst outcome, and the time in the middle.
struct Cell {
    outcome: Outcome,
    worse: bool,
    /// Until it was as good as it became.
    ms: Option<u64>,
}

impl Cell {
    fn new(results: &[Measured], wanted: impl Fn(&Pair) -> bool) -> Option<Self> {
        let of_pair: Vec<&Measured> = results.iter().filter(|result| wanted(&result.pair)).collect();
        let mut times: Vec<u64> =
            of_pair.iter().filter_map(|result| result.direct_ms.or(result.connected_ms)).collect();
        times.sort_unstable();
        let outcome = of_pair.iter().map(|result| result.outcome).min()?;
        let worse = of_pair.iter().any(|result| result.is_worse());
        Some(Self { outcome, worse, ms: times.get(times.len() / 2).copied() })
    }

    fn text(&self) -> String {
        let time = self.ms.map_or_else(String::new, |ms| format!(" {}.{}s", ms / 1000, ms % 1000 / 100));
        format!("{}{time}", self.outcome.word())
    }
}

/// What is at the left of a row: who listens, and whose ticket the dialers have.
type Row = (Inviter, Kind);

/// The rows that there are, and the dialers, which are the columns.
fn frame(results: &[Measured]) -> (Vec<Row>, Vec<Kind>) {
    let pairs = || results.iter().map(|result| result.pair).filter(|pair| !pair.same_nat);
    let rows: BTreeSet<Row> = pairs().map(|pair| (pair.ticket, pair.listener)).collect();
    let dialers: BTreeSet<Kind> = pairs().map(|pair| pair.dialer).collect();
    (rows.into_iter().collect(), dialers.into_iter().collect())
}

fn label((ticket, listener): Row) -> String {
    match ticket {
        Inviter::Public => listener.to_string(),
        Inviter::Listener => format!("{listener} ticket"),
    }
}

impl Cell {
    /// That of a row and a column.
    fn at(results: &[Measured], (ticket, listener): Row, dialer: Kind) -> Option<Self> {
        Self::new(results, |pair| *pair == Pair { ticket, ..Pair::new(listener, dialer) })
    }
}

/// The pairs as a grid: who listens on the left, with `ticket` where the dialers have its ticket, who dials at the top, and
/// a mark at what is worse than expected.
#[must_use]
pub fn grid(results: &[Measured]) -> String {
    let (rows, dialers) = frame(results);
    let mut text = format!("{:<23}", "listener \\ dialer");
    // A string takes what is written to it.
    for dialer in &dialers {
        _ = write!(text, " {:<CELL$.CELL$}", dialer.name());
    }
    for row in rows {
        _ = write!(text, "\n{:<23}", label(row));
        for dialer in &dialers {
            let cell = Cell::at(results, row, *dialer)
                .map_or_else(String::new, |cell| format!("{}{}", if cell.worse { "!" } else { "" }, cell.text()));
            _ = write!(text, " {cell:<CELL$}");
        }
    }
    if let Some(cell) = Cell::new(results, |pair| pair.same_nat) {
        _ = write!(text, "\n{:<23} {}{}", "behind one router", if cell.worse { "!" } else { "" }, cell.text());
    }
    let (worse, all) = (results.iter().filter(|result| result.is_worse()).count(), results.len());
    _ = write!(text, "\n{} of {all} as good as the NATs allow", all - worse);
    text
}

/// How long it took over all pairs.
#[must_use]
pub fn times(results: &[Measured]) -> String {
    let spread = |mut times: Vec<u64>| {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100);
        let words = at(50).zip(at(90)).zip(times.last());
        words.map_or_else(|| "-".to_owned(), |((half, most), all)| format!("{half} / {most} / {all}"))
    };
    let connected = spread(results.iter().filter_map(|result| result.connected_ms).collect());
    let direct = spread(results.iter().filter_map(Measured::until_direct_ms).collect());
    format!("ms in the median / for nine of ten / at most: connected {connected}, direct after that {direct}")
}

/// The grid as a picture.
#[must_use]
pub fn svg(results: &[Measured]) -> String {
    let (rows, dialers) = frame(results);
    let (left, top) = (150, 50);
    let (width, height) = (left + WIDTH * dialers.len() + 10, top + HEIGHT * rows.len() + 40);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">Who reaches whom: the listener on the left, the dialer at the top</text>\n"
    );
    for (column, dialer) in dialers.iter().enumerate() {
        let x = left + column * WIDTH + WIDTH / 2;
        _ = writeln!(svg, "<text x=\"{x}\" y=\"42\" text-anchor=\"middle\">{dialer}</text>");
    }
    for (position, row) in rows.into_iter().enumerate() {
        let y = top + position * HEIGHT;
        _ = writeln!(svg, "<text x=\"10\" y=\"{}\">{}</text>", y + HEIGHT / 2 + 4, label(row));
        for (column, dialer) in dialers.iter().enumerate() {
            if let Some(cell) = Cell::at(results, row, *dialer) {
                _ = write!(svg, "{}", square(&cell, left + column * WIDTH, y));
            }
        }
    }
    let y = height - 14;
    let legend =
        "green: nobody in between; yellow: through a relay; red: not connected; dark frame: the NATs allow more";
    _ = write!(svg, "<text x=\"10\" y=\"{y}\" fill=\"#555\">{legend}</text>\n</svg>\n");
    svg
}

fn square(cell: &Cell, x: usize, y: usize) -> String {
    let fill = match cell.outcome {
        Outcome::Direct => "#b7e4b0",
        Outcome::Relayed => "#ffe08a",
        Outcome::Apart | Outcome::Broken => "#f4a6a0",
    };
    let (frame, width) = if cell.worse { ("#7a0000", 2) } else { ("white", 1) };
    format!(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{fill}\" stroke=\"{frame}\" stroke-width=\"{width}\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
        x + 2,
        y + 2,
        WIDTH - 4,
        HEIGHT - 4,
        x + WIDTH / 2,
        y + HEIGHT / 2 + 4,
        cell.text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worse_than_expected_is_marked() {
        let result = |text: &str, outcome| {
            let pair: Pair = text.parse().unwrap();
            let ms = (outcome == Outcome::Direct).then_some(1234);
            Measured {
                pair,
                run: 0,
                expected: pair.expected(),
                outcome,
                connected_ms: ms,
                direct_ms: ms,
                transport: None,
                document_ms: None,
                relay_bytes: None,
                error: None,
            }
        };
        let results = [
            result("cgnat:cgnat", Outcome::Direct),
            result("cgnat:symmetric", Outcome::Relayed),
            result("symmetric:full_cone", Outcome::Apart),
            result("same:symmetric", Outcome::Direct),
        ];
        let text = grid(&results);
        assert!(text.contains(" direct 1.2s") && text.contains("!apart") && text.contains("3 of 4"), "{text}");
        assert!(text.contains(" relayed") && text.contains("behind one router       direct"), "{text}");
        assert!(times(&results).ends_with("connected 1234 / 1234 / 1234, direct after that 0 / 0 / 0"));
        assert!(times(&results[1..2]).ends_with("connected -, direct after that -"));
        assert!(line(&results[2]).ends_with("WORSE") && !line(&results[1]).contains("WORSE"));
        let svg = svg(&results);
        assert_eq!((svg.matches("<rect x").count(), svg.matches("#7a0000").count()), (3, 1));
    }
}

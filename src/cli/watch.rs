//! `watch`: what changes in a collection, as it changes.

use std::io::{BufRead, Read};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::failure::{Kind, Outcome};
use super::http::{ANSWER_DEPTH_MAX, Peer};
use super::output::{Output, line};
use crate::document::json;
use crate::gateway::path_segment;
use crate::limits::ANSWER_LINE_BYTES_MAX;

/// How long to wait before connecting again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// The collection
    collection: String,
    /// Where to start: a cursor that was printed before, or `beginning`
    #[arg(long, default_value = "now", value_name = "CURSOR")]
    since: String,
    /// Only documents whose ids start so
    #[arg(long, default_value = "", value_name = "PREFIX")]
    id_prefix: String,
    /// Leave out what the documents hold
    #[arg(long)]
    no_data: bool,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Prints changes until it is interrupted. When the peer goes away it waits, and goes on where it was.
pub(super) fn run(watch: &Watch, peer: &Peer, output: Output) -> Outcome {
    let mut left = watch.limit.unwrap_or(u64::MAX);
    let mut cursor = watch.since.clone();
    let mut connected = false;
    while left > 0 {
        match peer.lines(Method::GET, &path(watch, &cursor), None) {
            Ok(body) => {
                connected = true;
                read(body, output, &mut cursor, &mut left)?;
            }
            Err(failure) if connected && failure.kind == Kind::Unavailable => {}
            Err(failure) => return Err(failure),
        }
        if left > 0 {
            sleep(PAUSE);
        }
    }
    Ok(())
}

fn path(watch: &Watch, cursor: &str) -> String {
    let since = if cursor == "beginning" { String::new() } else { format!("&since={}", path_segment(cursor)) };
    format!(
        "/api/v1/collections/{}/changes?live=true{since}&id_prefix={}&data={}",
        path_segment(&watch.collection),
        path_segment(&watch.id_prefix),
        !watch.no_data
    )
}

/// Prints the events of a stream until it breaks or enough are printed.
fn read(mut stream: impl BufRead, output: Output, cursor: &mut String, left: &mut u64) -> Outcome {
    let (mut text, mut id) = (String::new(), None);
    while *left > 0 {
        text.clear();
        // A stream that broke is opened again; half a line is of no use.
        let Ok(read) = stream.by_ref().take(ANSWER_LINE_BYTES_MAX).read_line(&mut text) else { return Ok(()) };
        if read == 0 || !text.ends_with('\n') {
            return Ok(());
        }
        // The first id comes without a change. It counts at the end of its event: what was begun comes again.
        if let Some(begun) = text.strip_prefix("id: ") {
            id = Some(begun.trim_end().to_owned());
        } else if text == "\n"
            && let Some(whole) = id.take()
        {
            *cursor = whole;
        }
        let Some(change) = text
            .strip_prefix("data: ")
            .and_then(|data| json::parse_made(data.trim_end().as_bytes(), ANSWER_DEPTH_MAX).ok())
        else {
            continue;
        };
        show(&change, output)?;
        if let Some(at) = change["cursor"].as_str() {
            at.clone_into(cursor);
        }
        *left -= 1;
    }
    Ok(())
}

fn show(change: &Value, output: Output) -> Outcome {
    if !output.is_table() {
        return line(&change.to_string());
    }
    let text = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
    let what = match (&change["deleted"], change.get("data")) {
        (Value::Bool(true), _) => "deleted".to_owned(),
        (_, Some(data)) => data.to_string(),
        (_, None) => "changed".to_owned(),
    };
    output.text(&format!("{}  {}  {what}", text("updated_at"), text("id")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn a_stream_that_broke_before_anything_changed_goes_on_where_it_began() {
        let (mut cursor, mut left) = ("now".to_owned(), 1);
        let mut read = |stream: &str, cursor: &mut String| {
            read(stream.as_bytes(), Output::new(Some(Format::Ndjson), false), cursor, &mut left).unwrap();
        };
        read("retry: 1000\nid: S\n", &mut cursor);
        assert_eq!(cursor, "now");
        read("retry: 1000\nid: S\n: connected\n\n: alive\n\n", &mut cursor);
        assert_eq!(cursor, "S");
    }

    #[test]
    fn a_stream_is_read_to_where_it_broke() {
        let stream = concat!(
            "retry: 1000\n: connected\n\n",
            "id: A\nevent: change\ndata: {\"id\":\"a\",\"cursor\":\"A\"}\n\n",
            "id: B\nevent: change\ndata: {\"id\":\"b\",\"cursor\":\"B\"}\n\n",
            "id: C\nevent: change\ndata: {\"id\":\"c\",",
        );
        let (mut cursor, mut left) = (String::new(), 10);
        read(stream.as_bytes(), Output::new(Some(Format::Ndjson), false), &mut cursor, &mut left).unwrap();
        assert_eq!((cursor.as_str(), left), ("B", 8));
        let mut left = 1;
        read(stream.as_bytes(), Output::new(Some(Format::Ndjson), false), &mut cursor, &mut left).unwrap();
        assert_eq!((cursor.as_str(), left), ("A", 0));
    }
}

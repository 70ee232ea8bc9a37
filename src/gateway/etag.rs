//! Entity tags (RFC 9110, section 8.8.3) made of a document's heads, and the preconditions that name them.
//!
//! A tag is a hash of the sorted heads: two peers that hold the same changes give the same tag. Nothing leads back
//! from a tag to heads, so a conditional write reads the document, compares tags, and hands the heads that it
//! found to the node, which checks them again in the same step as it writes.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use data_encoding::HEXLOWER;

use super::problem::{Answer, Problem};
use crate::Condition;
use crate::base::ChangeHash;
use crate::peer::Document;

/// Bytes of the hash in a tag: collisions do not happen by chance, and are nobody's gain.
const TAG_BYTES: usize = 16;

/// The strong entity tag of a document, with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ETag(String);

impl ETag {
    /// The tag of a version.
    #[must_use]
    pub(super) fn new(heads: &[ChangeHash]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for head in heads {
            hasher.update(head.as_bytes());
        }
        Self(format!("\"{}\"", HEXLOWER.encode(&hasher.finalize().as_bytes()[..TAG_BYTES])))
    }

    /// The value of the header.
    #[must_use]
    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("quotes and hexadecimal digits fit a header")
    }
}

/// The tags that a precondition names.
#[derive(Debug, PartialEq, Eq)]
enum Tags<'a> {
    /// `*`
    Any,
    /// The tags as they are, weak ones with their mark.
    List(Vec<&'a str>),
}

/// Whether `If-None-Match` says that the client holds this version already.
///
/// # Errors
/// For a header that is not text.
pub(super) fn is_known(headers: &HeaderMap, tag: &ETag) -> Answer<bool> {
    // A read compares weakly: a mark that some cache put before a tag does not count.
    let same = |other: &str| other.strip_prefix("W/").unwrap_or(other) == tag.0;
    Ok(match tags(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::List(tags)) => tags.into_iter().any(same),
    })
}

/// The condition of a write, from its headers and the document as `read` finds it now.
///
/// # Errors
/// 412 when `If-Match` names no version that is there, 400 for preconditions that make no sense for a write.
pub(super) fn condition(
    headers: &HeaderMap,
    read: impl FnOnce() -> crate::Result<Option<Document>>,
) -> Answer<Condition> {
    match (tags(headers, &IF_MATCH)?, tags(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Any),
        (None, Some(Tags::Any)) => Ok(Condition::Absent),
        (Some(Tags::Any), None) => Ok(Condition::Present),
        (Some(Tags::List(tags)), None) => match read()? {
            Some(document) if tags.contains(&ETag::new(document.heads()).0.as_str()) => {
                Ok(Condition::Heads(vec![document.heads().to_vec()]))
            }
            Some(document) => Err(failed(format!(
                "document {}/{} has changed since it was read; read it again and retry",
                document.collection(),
                document.id()
            ))),
            None => Err(failed("the document does not exist".into())),
        },
        (_, Some(Tags::List(_))) => {
            Err(bad("If-None-Match of a write takes nothing but *; use If-Match for a version"))
        }
        (Some(_), Some(_)) => Err(bad("If-Match and If-None-Match exclude each other in a write; leave one out")),
    }
}

fn failed(detail: String) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

fn bad(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// The tags under a header, which may stand there several times. Our tags contain no comma.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Answer<Option<Tags<'a>>> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| Problem::new(StatusCode::BAD_REQUEST, format!("{name} is not text")))?;
        tags.extend(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()));
    }
    Ok(match tags.as_slice() {
        [] if headers.contains_key(name) => Some(Tags::List(tags)),
        [] => None,
        ["*"] => Some(Tags::Any),
        _ => Some(Tags::List(tags)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_tag_is_short_strong_and_of_its_heads() {
        let (a, b) = (ChangeHash([1; 32]), ChangeHash([2; 32]));
        let tag = ETag::new(&[a, b]);
        assert_eq!(tag, ETag::new(&[a, b]));
        assert_ne!(tag, ETag::new(&[a]));
        assert_eq!(tag.0.len(), 34);
        assert!(tag.0.starts_with('"') && tag.0.ends_with('"'));
    }

    #[test]
    fn a_read_compares_weakly_and_in_lists() {
        let tag = ETag::new(&[ChangeHash([1; 32])]);
        let known = |value: &str| is_known(&headers(&[(IF_NONE_MATCH, value)]), &tag).unwrap();
        assert!(known(&tag.0) && known("*") && known(&format!("W/{}", tag.0)) && known(&format!("\"x\", {}", tag.0)));
        assert!(!known("\"x\"") && !known(""));
        assert!(!is_known(&HeaderMap::new(), &tag).unwrap());
    }

    #[test]
    fn headers_become_conditions() {
        let absent = || Ok(None);
        let condition = |pairs: &[(HeaderName, &str)]| super::condition(&headers(pairs), absent);
        assert_eq!(condition(&[]), Ok(Condition::Any));
        assert_eq!(condition(&[(IF_NONE_MATCH, "*")]), Ok(Condition::Absent));
        assert_eq!(condition(&[(IF_MATCH, "*")]), Ok(Condition::Present));
        assert_eq!(condition(&[(IF_MATCH, "\"x\"")]).unwrap_err().status, 412);
        assert_eq!(condition(&[(IF_NONE_MATCH, "\"x\"")]).unwrap_err().status, 400);
        assert_eq!(condition(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]).unwrap_err().status, 400);
    }

    proptest! {
        /// Whatever the headers hold, they are understood or refused; and our own tag is found among any others.
        #[test]
        fn any_header_is_read_without_a_panic(
            values in prop::collection::vec(prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..60), 0..4),
            name in prop_oneof![Just(IF_MATCH), Just(IF_NONE_MATCH)],
        ) {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
            }
            let tag = ETag::new(&[ChangeHash([1; 32])]);
            let (known, condition) = (is_known(&headers, &tag), super::condition(&headers, || Ok(None)));
            for status in [known.err(), condition.err()].into_iter().flatten().map(|problem| problem.status.as_u16()) {
                prop_assert!([400, 412].contains(&status));
            }
            headers.append(IF_NONE_MATCH, tag.header());
            let is_text = values.iter().flatten().all(u8::is_ascii) || name == IF_MATCH;
            prop_assert!(!is_text || is_known(&headers, &tag).unwrap());
        }
    }
}

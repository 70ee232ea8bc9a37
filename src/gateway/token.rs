//! The token that every call needs when the peer has one: its file, its header (RFC 6750), and the comparison.
//!
//! There is one token for all: whoever has it may do what the peer may do. Who may do what is a matter of the mesh.

use std::fmt;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::identity::secret_file;
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN};
use crate::{Error, Result};

/// Random bytes of a token that is made here: beyond guessing.
const RANDOM_BYTES: usize = 32;

/// A token to compare with. Only its hash is kept.
#[derive(Clone)]
pub(super) struct Token(blake3::Hash);

/// What a request says in `Authorization`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// Nothing.
    Missing,
    /// Something that is no bearer token.
    Unusable,
    /// A token.
    Bearer(&'a str),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// The token of a text.
    pub(super) fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// Reads the token in a file; makes one where there is no file.
    ///
    /// # Errors
    /// When the file is open to other users or holds no token, or cannot be read or made.
    pub(super) fn load_or_create(path: &Path) -> Result<Self> {
        if let Some(text) = read(path)? {
            return Ok(Self::new(&text));
        }
        let mut random = Zeroizing::new([0; RANDOM_BYTES]);
        getrandom::fill(&mut *random).map_err(|error| Error::Io(format!("the system gives no randomness: {error}")))?;
        let text = Zeroizing::new(data_encoding::BASE64URL_NOPAD.encode(&*random) + "\n");
        secret_file::create(path, text.as_bytes())?;
        // What the disk has: another process's token if that one was first.
        let text = read(path)?.ok_or_else(|| Error::Io(format!("the token file {} is gone", path.display())))?;
        Ok(Self::new(&text))
    }

    /// Whether a text is this token, in a time that does not depend on how much of it is right.
    pub(super) fn is(&self, text: &str) -> bool {
        // The hash hides the length, and comparing two of blake3's takes the same time whatever they are.
        blake3::hash(text.as_bytes()) == self.0
    }
}

/// Reads the token in a file; `None` when there is no file.
///
/// # Errors
/// When the file is open to other users, cannot be read, or holds no token.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let Some(bytes) = secret_file::read(path, TOKEN_BYTES_MAX as u64 + 2)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).map(str::trim_ascii).unwrap_or_default();
    if is_token(text) && (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
        return Ok(Some(Zeroizing::new(text.to_owned())));
    }
    Err(Error::invalid(format!(
        "{} holds no token: that is one line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and -._~+/=; \
         move the file away, and a new one is made",
        path.display()
    )))
}

/// Whether a text can stand in the header: `b64token` of RFC 6750.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// What a request says in `Authorization`. Said twice is not said.
pub(super) fn credentials(headers: &HeaderMap) -> Credentials<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Credentials::Missing };
    let text = value.to_str().ok().filter(|_| second.is_none());
    let Some((scheme, token)) = text.and_then(|text| text.split_once(' ')) else { return Credentials::Unusable };
    let token = token.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") && is_token(token) && token.len() <= TOKEN_BYTES_MAX {
        Credentials::Bearer(token)
    } else {
        Credentials::Unusable
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let header = |value: &&[u8]| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        values.iter().map(header).collect()
    }

    #[test]
    fn a_file_is_made_once_and_read_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(read(&path).unwrap(), None);
        Token::load_or_create(&path).unwrap();
        let text = read(&path).unwrap().unwrap();
        assert_eq!(data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap().len(), RANDOM_BYTES);
        let token = Token::load_or_create(&path).unwrap();
        assert!(token.is(&text) && !token.is("") && !token.is(&text[1..]) && !token.is(&format!("{}x", *text)));
        assert!(!format!("{token:?}").contains(&**text));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_token_is_refused_and_left_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for bad in
            ["", "short", "two words that are long enough for a token", &long, "ümlaut-ümlaut-ümlaut-ümlaut-ümlaut"]
        {
            std::fs::write(&path, bad).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(Token::load_or_create(&path).unwrap_err().to_string().contains("holds no token"), "{bad}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Token::load_or_create(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn the_header_is_read_strictly() {
        for (values, expected) in [
            (&[][..], Credentials::Missing),
            (&[&b"Bearer abc"[..]][..], Credentials::Bearer("abc")),
            (&[b"bEARER   a-._~+/1=="], Credentials::Bearer("a-._~+/1==")),
            (&[b"Bearer"], Credentials::Unusable),
            (&[b"Bearer "], Credentials::Unusable),
            (&[b"Bearer =="], Credentials::Unusable),
            (&[b"Bearer a b"], Credentials::Unusable),
            (&[b"Basic abc"], Credentials::Unusable),
            (&[b"Bearer \xff"], Credentials::Unusable),
            (&[b"Bearer abc", b"Bearer abc"], Credentials::Unusable),
        ] {
            assert_eq!(credentials(&headers(values)), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(
            value in prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff, Just(b'\t')], 0..600),
        ) {
            let headers = headers(&[&value]);
            if let Credentials::Bearer(token) = credentials(&headers) {
                prop_assert!(is_token(token) && token.len() <= TOKEN_BYTES_MAX);
                prop_assert!(value[..7].eq_ignore_ascii_case(b"bearer "));
            }
        }

        #[test]
        fn every_token_arrives(token in "[A-Za-z0-9._~+/-]{1,512}", spaces in " {1,3}") {
            let value = format!("Bearer{spaces}{token}");
            let headers = headers(&[value.as_bytes()]);
            prop_assert_eq!(credentials(&headers), Credentials::Bearer(&token));
        }
    }
}

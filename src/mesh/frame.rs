//! Frames: a length of four bytes, most significant first, then one message.
//!
//! A length beyond the limit is refused before anything is read, and memory grows with what arrives, not
//! with what was announced: a peer must send four megabytes to occupy four.

use std::io;

use futures::{AsyncRead, AsyncReadExt};

use crate::base::Encode;
use crate::limits::FRAME_BYTES_MAX;
use crate::sync::Message;

/// Bytes of the length.
const LENGTH_BYTES: usize = 4;
/// Bytes that are reserved at once for a frame of which nothing has arrived yet.
const FIRST_BYTES: usize = 16 << 10;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The frame is larger than any may be.
    #[error("a frame of {0} bytes, above the limit of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// The stream broke, or ended within a frame.
    #[error("the stream broke: {0}")]
    Broken(#[from] io::Error),
}

/// A message as a frame.
///
/// # Errors
/// When it is too large for one.
pub(super) fn write(message: &Message) -> Result<Vec<u8>, FrameError> {
    let body = message.to_bytes();
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLarge(body.len()))?;
    // One buffer, so that a multiplexer that frames each write does not send the length by itself.
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

/// The body of the next frame; `None` when the stream ended before it.
///
/// # Errors
/// When the frame is too large, or the stream breaks.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; LENGTH_BYTES];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[first..]).await?;
    // usize has at least 32 bits wherever this runs.
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(length));
    }
    let mut body = Vec::with_capacity(length.min(FIRST_BYTES));
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    use super::*;
    use crate::sync::message::decode;

    #[test]
    fn messages_read_back_one_by_one() {
        let messages = [Message::Acknowledged(1), Message::Refused("no".into()), Message::Acknowledged(u64::MAX)];
        let bytes: Vec<u8> = messages.iter().flat_map(|message| write(message).unwrap()).collect();
        let mut stream = Cursor::new(bytes);
        for message in messages {
            assert_eq!(decode(&block_on(read(&mut stream)).unwrap().unwrap()).unwrap(), message);
        }
        assert!(block_on(read(&mut stream)).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_length_is_refused_cut_or_read_exactly(length: u32, small in 0u32..64, body: Vec<u8>) {
            for length in [length, small] {
                let mut stream = Cursor::new([&length.to_be_bytes(), body.as_slice()].concat());
                let expected = length as usize;
                match block_on(read(&mut stream)) {
                    Ok(frame) => prop_assert_eq!(frame.unwrap(), &body[..expected]),
                    Err(FrameError::TooLarge(claimed)) => {
                        prop_assert!(claimed == expected && expected > FRAME_BYTES_MAX);
                    }
                    Err(FrameError::Broken(_)) => prop_assert!(expected > body.len()),
                }
            }
        }

        #[test]
        fn a_cut_anywhere_is_noticed(cut in 1usize..6) {
            let frame = write(&Message::Acknowledged(7)).unwrap();
            let mut stream = Cursor::new(&frame[..cut.min(frame.len() - 1)]);
            prop_assert!(block_on(read(&mut stream)).is_err());
        }
    }
}
